use super::*;
use crate::os::{Span, map_sparse, set_access, unmap};

/// Two pages of words that say their own addresses, behind which nothing can be read.
fn with_words(test: impl FnOnce(usize, usize)) {
    let span = map_sparse(3 * PAGE).expect("memory");
    let end = span.at + 2 * PAGE;
    for at in (span.at..end).step_by(WORD) {
        // SAFETY: mapped above.
        unsafe { (at as *mut usize).write(at) };
    }
    // SAFETY: the last page, which nobody uses.
    assert!(unsafe { set_access(Span { at: end, bytes: PAGE }, false) });
    test(span.at, end);
    unmap(span);
}

#[test]
fn words_are_read_up_to_the_very_end_and_no_further() {
    with_words(|begin, end| {
        let stack = Stack { low: begin, high: end, hole: 0 };
        let mut direct = Direct { low: begin, high: end };
        let mut copied = Copied::new(Direct { low: 0, high: 0 });
        for at in [begin, begin + PAGE - WORD, begin + PAGE, end - 2 * WORD, end - WORD] {
            assert_eq!([direct.word(at), copied.word(at)], [Some(at); 2]);
            assert_eq!([stack.above(begin).word(at - begin), stack.above(at).word(0)], [at; 2]);
        }
        for at in
            (1..WORD).map(|bytes| end - WORD + bytes).chain([end, end + 1, end + WORD, usize::MAX - 7, usize::MAX])
        {
            assert_eq!([direct.word(at), copied.word(at)], [None; 2], "{:x}", at - end);
            for sp in [begin, end - WORD] {
                assert!(!stack.above(sp).has(at.wrapping_sub(sp)) && stack.above(sp).word(at.wrapping_sub(sp)) == 0);
            }
        }
        assert_eq!([direct.word(begin + 4), copied.word(begin + 4)], [None; 2], "not aligned");
        assert!(!stack.above(end).has(0) && !stack.above(begin - WORD).has(WORD), "elsewhere");
        assert!(!Stack::unknown().above(begin).has(0));
    });
}

#[test]
fn the_threads_own_stack_is_known_up_to_its_end() {
    let here = 0_usize;
    let at = &raw const here as usize;
    let mut stack = Stack::unknown();
    let mut direct = stack.direct(at);
    assert!(stack.above(at).has(direct.high - WORD - at) && !stack.above(at).has(direct.high - WORD - at + 1));
    assert!((at..direct.high).step_by(WORD).all(|slot| direct.word(slot).is_some()));
}
