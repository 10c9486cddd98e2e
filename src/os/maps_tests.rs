use super::{Mapping, Span, each_mapping, each_writable_mapping, mapping_around};
use std::vec::Vec;

#[test]
fn a_line_is_read() {
    let line = b"7f01-8000 r-xp 0000a000 08:01 123        /a name/with spaces";
    let expected = Mapping {
        span: Span { at: 0x7f01, bytes: 0xff },
        offset: 0xa000,
        file: 123,
        name: b"/a name/with spaces",
        access: b"r-xp",
        line,
    };
    assert_eq!(Mapping::of(line), Some(expected));
    let nameless = Mapping::of(b"1000-2000 rw-p 00000000 00:00 0 ").expect("a line");
    assert!(nameless.name.is_empty() && nameless.has(0x1fff) && !nameless.has(0x2000) && !nameless.has(0xfff));
    let cut = b"1000-2000 rw-p 00000000 00:00 0 ";
    assert!((0..cut.len() - 2).all(|len| Mapping::of(&cut[..len]).is_none_or(|mapping| mapping.line.len() == len)));
    assert!([&b""[..], b"-", b"2000-1000 rw-p 0 0 0", b"x-y rw-p 0 0 0", b"\xff-1 "].map(Mapping::of) == [None; 5]);
}

/// The mappings that there are before one of this program's own, through a buffer of so many bytes.
fn spans(bytes: usize) -> Vec<Span> {
    static HERE: u8 = 0;
    let (mut found, mut buffer) = (Vec::with_capacity(10_000), std::vec![0; bytes]);
    each_mapping(&mut buffer, |mapping| {
        found.push(mapping.span);
        !mapping.has(&raw const HERE as usize)
    });
    found
}

#[test]
fn a_short_buffer_cuts_names_off_and_nothing_else() {
    let all = spans(1 << 16);
    assert!(!all.is_empty());
    assert_eq!(spans(4096), all);
    // The numbers of a line have room.
    assert_eq!(spans(80), all);
    assert!(spans(8).is_empty() && spans(0).is_empty());
}

#[test]
fn what_an_address_lies_in_is_shown_once() {
    let local = 5;
    let at = &raw const local as usize;
    let (mut shown, mut is_writable) = (0, false);
    mapping_around(at, |line| {
        shown += 1;
        assert!(Mapping::of(line).is_some_and(|mapping| mapping.has(at)));
    });
    each_writable_mapping(|span| is_writable |= span.contains(Span { at, bytes: 4 }));
    assert!(shown == 1 && is_writable);
    mapping_around(8, |line| panic!("nothing is there: {line:?}"));
}
