use super::super::window::Window;
use super::{Image, Symbols, WIDTH, elf, shortened};
use crate::os::File;
use std::ffi::CString;
use std::fmt::Write as _;

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

fn name(symbols: &mut Symbols, address: usize) -> String {
    let mut text = String::new();
    symbols.write(address, &mut text).expect("a string takes everything");
    text
}

/// The code of the test program: a range of addresses.
fn code() -> (usize, usize) {
    let here = code as fn() -> (usize, usize) as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the kernel says");
    let ranges = maps.lines().filter_map(|line| line.split(' ').next()?.split_once('-'));
    let mut ranges = ranges.map(|(start, end)| [start, end].map(|text| usize::from_str_radix(text, 16).expect("hex")));
    let [start, end] = ranges.find(|[start, end]| (*start..*end).contains(&here)).expect("this is mapped");
    (start, end)
}

/// What the crate `backtrace` says of an address: the function and the line.
fn reference(address: usize) -> Option<(String, Option<(String, u32)>)> {
    let (mut function, mut lines) = (None, Vec::new());
    backtrace::resolve(address as *mut _, |symbol| {
        let place = symbol.filename().zip(symbol.lineno());
        lines.push(place.map(|(path, line)| (path.to_string_lossy().into_owned(), line)));
        function = symbol.name().map(|name| format!("{name:#}"));
    });
    // The first is what was inlined last, the last the function that there is.
    Some((function?, lines.swap_remove(0)))
}

/// Compares names and lines for addresses all over the program.
#[test]
fn names_and_lines_are_those_of_another_reader() {
    let ((start, end), mut symbols, mut state) = (code(), Symbols::new(), 3);
    let (mut named, mut same, mut lined) = (0, 0, 0);
    for _ in 0..300 {
        let address = start + random(&mut state) % (end - start);
        let Some((function, line)) = reference(address) else { continue };
        let mine = name(&mut symbols, address);
        named += 1;
        // With line tables only there is no more than the last part of a name.
        let last = function.split('<').next().expect("there is one");
        same += usize::from(last.contains("{") || mine.contains(last));
        if let Some((path, line)) = line {
            let file = path.rsplit('/').next().expect("there is one");
            let is_same = [')', ','].iter().any(|end| mine.contains(&format!("{file}:{line}{end}")));
            assert!(is_same, "{mine} is at {path}:{line}");
            lined += 1;
        }
    }
    assert!(named > 200 && lined > 150, "{named} names, {lined} lines");
    // Functions of the same code may have one address.
    assert!(same * 100 > named * 90, "{same} of {named} functions have the same name");
}

#[test]
fn what_has_no_name() {
    let mut symbols = Symbols::new();
    assert_eq!(name(&mut symbols, 0x1234), "0x1234");
    assert_eq!(name(&mut symbols, 0), "0x0");
    assert_eq!(name(&mut symbols, usize::MAX), "0xffffffffffffffff");
    let local = 5;
    let at = &raw const local as usize;
    assert!(name(&mut symbols, at).ends_with(&format!("{at:#x}")) || name(&mut symbols, at).starts_with('['));
    // SAFETY: no preconditions.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    if vdso != 0 {
        assert_eq!(name(&mut symbols, vdso + 0x101), "[vdso]+0x101");
    }
}

#[test]
fn functions_of_the_c_library() {
    let mut symbols = Symbols::new();
    // SAFETY: a name that ends with a zero. (The program's own address of it may be that of a stub.)
    let qsort = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"qsort".as_ptr()) } as usize;
    let text = name(&mut symbols, qsort + 5);
    assert!(qsort == 0 || text.starts_with("qsort+0x5"), "{text}");
}

#[test]
fn paths_are_shortened() {
    for (long, short) in [
        ("/rustc/0123abc/library/core/src/ops", "library/core/src/ops"),
        ("/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/regex-1.1/src", "regex-1.1/src"),
        ("/home/me/code/src", "/home/me/code/src"),
        ("src", "src"),
        ("/rustc/0123abc", ""),
    ] {
        assert_eq!(shortened(long.as_bytes()), short.as_bytes());
    }
}

/// A file in memory, and its name.
struct Made {
    descriptor: i32,
}

impl Made {
    fn new(bytes: &[u8]) -> Self {
        // SAFETY: the name ends with a zero.
        let descriptor = unsafe { libc::memfd_create(c"made".as_ptr(), 0) };
        assert!(descriptor >= 0);
        let made = Self { descriptor };
        made.write(0, bytes);
        made
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        // SAFETY: the bytes are there.
        let len = unsafe { libc::pwrite(self.descriptor, bytes.as_ptr().cast(), bytes.len(), at as i64) };
        assert_eq!(len, bytes.len() as isize);
    }

    fn cut(&self, bytes: usize) {
        // SAFETY: the file is ours.
        assert_eq!(unsafe { libc::ftruncate(self.descriptor, bytes as i64) }, 0);
    }

    fn open(&self) -> File {
        let name = CString::new(format!("/proc/self/fd/{}", self.descriptor)).expect("no zero");
        File::open(&name).expect("it is open already")
    }

    /// What is said of an address.
    fn name(&self, address: u64) -> String {
        let (mut buffer, mut text) = (vec![0; WIDTH], String::new());
        match Image::new(self.open(), &mut buffer) {
            Some(mut image) => image.write(address, b"made", &mut buffer, &mut text).expect("a string"),
            None => text.write_str("no image").expect("a string"),
        }
        text
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { libc::close(self.descriptor) };
    }
}

/// The test program's own bytes at `from..to`.
fn own(from: u64, to: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; (to - from) as usize];
    let file = std::fs::File::open("/proc/self/exe").expect("it runs");
    file.read_exact_at(&mut bytes, from).expect("so long");
    bytes
}

/// Some units of lines that are not large.
fn small_units(mut section: &[u8]) -> Vec<u8> {
    let mut units = Vec::new();
    while let Some(bytes) = section.first_chunk().filter(|_| units.len() < 30_000) {
        let (unit, rest) = section.split_at(4 + u32::from_le_bytes(*bytes) as usize);
        if unit.len() < 15_000 {
            units.extend(unit);
        }
        section = rest;
    }
    units
}

/// An ELF file of the first symbols and lines of the test program, and some addresses that it has lines for.
fn small() -> (Vec<u8>, Vec<u64>) {
    let file = File::open(c"/proc/self/exe").expect("it runs");
    let mut buffer = vec![0; WIDTH];
    let image = Image::new(file, &mut buffer).expect("an image");
    let mut sections = image.sections.named_parts();
    for (name, part) in &mut sections {
        part.end = if *name == ".debug_line" { part.end } else { part.end.min(part.at + 200_000) };
    }
    let bytes = assemble(sections.map(|(name, part)| {
        let bytes = own(part.at, part.end);
        (name, if name == ".debug_line" { small_units(&bytes) } else { bytes })
    }));
    let made = Made::new(&bytes);
    let mut image = Image::new(made.open(), &mut buffer).expect("an image");
    let _ = image.write(0, b"", &mut buffer, &mut String::new());
    let addresses = image.index.expect("asked for").expect("there are lines").starts();
    assert!(addresses.len() > 10, "{} sequences", addresses.len());
    (bytes, addresses)
}

/// An ELF file of these sections.
fn assemble<const N: usize>(sections: [(&str, Vec<u8>); N]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let (mut names, mut headers) = (vec![0], vec![[0_u64; 8]]);
    let mut add = |name: &str, content: &[u8], bytes: &mut Vec<u8>| {
        headers.push([names.len() as u64 | 1 << 32, 0, 0, bytes.len() as u64, content.len() as u64, 0, 0, 0]);
        names.extend(name.bytes().chain([0]));
        bytes.extend(content);
        names.clone()
    };
    for (name, content) in &sections {
        add(name, content, &mut bytes);
    }
    let texts = add(".shstrtab", &[], &mut bytes);
    let last = headers.len() - 1;
    headers[last][4] = texts.len() as u64;
    bytes.extend(texts);
    let at = bytes.len() as u64;
    bytes.extend(headers.iter().flatten().flat_map(|word| word.to_le_bytes()));
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[40..48].copy_from_slice(&at.to_le_bytes());
    for (place, value) in [(54, 56), (58, 64), (60, headers.len()), (62, last)] {
        bytes[place..place + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    bytes
}

#[test]
fn a_file_that_is_cut_short_says_less() {
    let (bytes, addresses) = small();
    let whole = Made::new(&bytes).name(addresses[3]);
    assert!(whole.contains(" (") && whole.ends_with(')'), "{whole}");
    let made = Made::new(&bytes);
    for len in (0..bytes.len()).rev().step_by(bytes.len() / 200).chain(0..100) {
        made.cut(len);
        let _ = made.name(addresses[3]);
    }
    assert_eq!(Made::new(&bytes[..32]).name(addresses[0]), "no image");
    assert_eq!(Made::new(b"").name(addresses[0]), "no image");
}

#[test]
fn a_file_that_says_anything() {
    let (bytes, addresses) = small();
    let made = Made::new(&bytes);
    let mut state = 11;
    let rounds = if cfg!(debug_assertions) { 400 } else { 6000 };
    for round in 0..rounds {
        let places: [usize; 4] = std::array::from_fn(|_| match random(&mut state) % 4 {
            // The headers at the beginning and the end, and the rest.
            0 => random(&mut state) % 64,
            1 => bytes.len() - 1 - random(&mut state) % 600,
            _ => random(&mut state) % bytes.len(),
        });
        for place in places {
            made.write(place, &[random(&mut state) as u8]);
        }
        let _ = made.name(addresses[round % addresses.len()]);
        let _ = elf::address_of(&mut Window::new(&made.open(), &mut [0; 512]), 4096);
        for place in places {
            made.write(place, &bytes[place..=place]);
        }
    }
    assert_eq!(made.name(addresses[3]), Made::new(&bytes).name(addresses[3]));
}
