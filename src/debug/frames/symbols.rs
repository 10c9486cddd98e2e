//! Names for addresses: the function, and the line of the sources, by what the module's file says.
//!
//! Files are read when a name is asked for, a piece at a time; a file that was changed, cut short or made up yields less,
//! or nonsense, but no harm. What is kept meanwhile lies in mappings of its own.

use super::elf::{self, Sections, Symbol};
use super::files;
use super::lines::{Index, Line, Place};
use super::maps::{self, Mapping};
use super::window::{Part, Window};
use crate::os::{File, Room, copy_from, keep_errno, link_target};
use core::ffi::CStr;
use core::fmt::{Result, Write};

/// Modules whose files stay open.
const MODULES: usize = 4;
/// A name of a file, with its zero.
const NAME: usize = 4096;
/// Bytes of a file that are read at once.
const WIDTH: usize = 64 << 10;
/// Bytes of a symbol's name, and of a text in the names of files, at the most.
const SYMBOL: usize = 4096;
const TEXT: usize = 1024;
/// Bytes of code by which it is seen that a file is still the one that is mapped.
const SAMPLE: usize = 64;

/// What is known of modules while a report is written. Their files are open as long as this is there.
#[derive(Debug)]
pub(crate) struct Symbols {
    modules: [Option<Module>; MODULES],
    /// Where the next module goes.
    next: usize,
}

/// A mapping that addresses were found in.
#[derive(Debug)]
struct Module {
    mapping: Mapping,
    /// The name of the file, with a zero behind it, and a piece of the file.
    room: Room,
    image: Option<Image>,
}

/// An ELF file.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    sections: Sections,
    /// Made when a line is first asked for; none if there are no lines.
    index: Option<Option<Index>>,
}

impl Symbols {
    /// Nothing is known yet.
    pub(crate) const fn new() -> Self {
        Self { modules: [const { None }; MODULES], next: 0 }
    }

    /// Writes what is at a return address, that is, what the call before it is in:
    /// `module::function+0x12 (src/file.rs:34)`, or the part of that which is known, or `/path/of/library.so+0x1234`, or
    /// the bare address. Of what is inlined the line alone is named; if that is of the standard library, so is the line
    /// before that is not: `(library/alloc/src/alloc.rs:95, near src/file.rs:34)`. It takes up to some milliseconds, and longer for the first line in a large file.
    ///
    /// # Errors
    /// Those of `to`.
    pub(crate) fn write(&mut self, address: usize, to: &mut dyn Write) -> Result {
        keep_errno(|| match self.module(address.wrapping_sub(1)) {
            Some(module) => module.write(address, &mut Plain(to)),
            None => write!(to, "{address:#x}"),
        })
    }

    /// The module that an instruction is in.
    fn module(&mut self, instruction: usize) -> Option<&mut Module> {
        let is_in =
            |module: &Option<Module>| module.as_ref().is_some_and(|module| module.mapping.contains(instruction));
        let known = self.modules.iter().position(is_in);
        let place = known.unwrap_or(self.next);
        if known.is_none() {
            *self.modules.get_mut(place)? = Some(Module::load(instruction)?);
            self.next = (place + 1) % MODULES;
        }
        self.modules.get_mut(place)?.as_mut()
    }
}

impl Module {
    fn load(instruction: usize) -> Option<Self> {
        let mut room = Room::new(NAME + WIDTH)?;
        // Behind the name the room stays zero.
        let (name, buffer) = room.bytes().split_at_mut(NAME);
        let mapping = maps::find(instruction, buffer, &mut name[..NAME - 1])?;
        let image = open(name, buffer)
            .filter(|file| is_same(file, mapping.offset_of(instruction), instruction))
            .and_then(|file| Image::new(file, buffer));
        Some(Self { mapping, room, image })
    }

    fn write(&mut self, address: usize, to: &mut dyn Write) -> Result {
        let offset = self.mapping.offset_of(address.wrapping_sub(1));
        let (name, buffer) = self.room.bytes().split_at_mut(NAME);
        let name = name.get(..self.mapping.name).unwrap_or_default();
        let at = self.image.as_ref().and_then(|image| image.address_of(buffer, offset));
        match (&mut self.image, at) {
            (Some(image), Some(at)) => image.write(at, name, buffer, to),
            _ if name.is_empty() => write!(to, "{address:#x}"),
            _ => write_module(name, offset, to),
        }
    }
}

/// Writes that the call before an address is all that is known.
fn write_module(name: &[u8], at: u64, to: &mut dyn Write) -> Result {
    write_bytes(name, to)?;
    write!(to, "+{:#x}", at.wrapping_add(1))
}

/// Opens a module's file: the program itself even if its file has got another name, or none.
fn open(name: &[u8], buffer: &mut [u8]) -> Option<File> {
    const PROGRAM: &CStr = c"/proc/self/exe";
    let name = CStr::from_bytes_until_nul(name).ok().filter(|name| name.to_bytes().starts_with(b"/"))?;
    let is_program = link_target(PROGRAM, buffer) == name.to_bytes();
    File::open(if is_program { PROGRAM } else { name })
}

/// Whether the code at an instruction is what the file has at an offset.
fn is_same(file: &File, offset: u64, instruction: usize) -> bool {
    let (mut there, mut here) = ([0; SAMPLE], [0; SAMPLE]);
    let len = file.read_at(offset, &mut there).min(copy_from(instruction, &mut here));
    len > 0 && there[..len] == here[..len]
}

impl Image {
    /// The file, if it is an ELF file.
    pub(super) fn new(file: File, buffer: &mut [u8]) -> Option<Self> {
        let bytes = file.len();
        let sections = Sections::read(&mut Window::new(&file, buffer), bytes)?;
        Some(Self { file, sections, index: None })
    }

    /// The address that a byte of the file is meant for.
    fn address_of(&self, buffer: &mut [u8], offset: u64) -> Option<u64> {
        elf::address_of(&mut Window::new(&self.file, buffer), offset)
    }

    /// Writes what the instruction meant for the address `at` is in; `name` is the module's.
    pub(super) fn write(&mut self, at: u64, name: &[u8], buffer: &mut [u8], to: &mut dyn Write) -> Result {
        let Self { file, sections, index } = self;
        let mut window = Window::new(file, buffer);
        match sections.function(&mut window, at) {
            Some(symbol) => write_symbol(&mut window, sections, symbol, at, to)?,
            None => write_module(name, at, to)?,
        }
        let index = index.get_or_insert_with(|| Index::new(&mut window, sections.lines)).as_mut();
        match index.and_then(|index| index.place(&mut window, sections, at)) {
            Some(place) => write_place(&mut window, place, to),
            None => Ok(()),
        }
    }
}

fn write_symbol(window: &mut Window<'_>, sections: &Sections, symbol: Symbol, at: u64, to: &mut dyn Write) -> Result {
    let name = sections.name(window, symbol, SYMBOL);
    match core::str::from_utf8(name) {
        // Without the hash.
        Ok(name) => write!(to, "{:#}", rustc_demangle::demangle(name))?,
        Err(_) => write_bytes(name, to)?,
    }
    write!(to, "+{:#x}", (at - symbol.address).wrapping_add(1))
}

fn write_place(window: &mut Window<'_>, place: Place, to: &mut dyn Write) -> Result {
    to.write_str(" (")?;
    write_line(window, place.line, to)?;
    if let Some(near) = place.near {
        to.write_str(", near ")?;
        write_line(window, near, to)?;
    }
    to.write_char(')')
}

fn write_line(window: &mut Window<'_>, line: Line, to: &mut dyn Write) -> Result {
    let files::Name { directory, file } = line.name;
    let path = if is_absolute(window, file) { b"" } else { shortened(window.text(directory, TEXT)) };
    if !path.is_empty() {
        write_bytes(path, to)?;
        to.write_char('/')?;
    }
    write_bytes(shortened(window.text(file, TEXT)), to)?;
    write!(to, ":{}", line.line)
}

fn is_absolute(window: &mut Window<'_>, file: Part) -> bool {
    window.text(file, TEXT).starts_with(b"/")
}

/// A path without what says nothing: the commit of the compiler, and where cargo keeps what it has fetched.
fn shortened(path: &[u8]) -> &[u8] {
    const FETCHED: &[u8] = b"/registry/src/";
    let fetched = path.windows(FETCHED.len()).position(|part| part == FETCHED).map(|at| at + FETCHED.len());
    let compiler = path.starts_with(b"/rustc/").then_some("/rustc/".len());
    let Some(rest) = compiler.or(fetched).and_then(|at| path.get(at..)) else { return path };
    let slash = rest.iter().position(|byte| *byte == b'/');
    slash.and_then(|at| rest.get(at + 1..)).unwrap_or_default()
}

/// Writes bytes that should be text.
fn write_bytes(bytes: &[u8], to: &mut dyn Write) -> Result {
    bytes.utf8_chunks().try_for_each(|chunk| {
        to.write_str(chunk.valid())?;
        if chunk.invalid().is_empty() { Ok(()) } else { to.write_char('?') }
    })
}

/// Text without control characters: files may have any names in them.
struct Plain<'a>(&'a mut dyn Write);

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> Result {
        text.split_inclusive(char::is_control).try_for_each(|part| {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            if plain.len() == part.len() { Ok(()) } else { self.0.write_char('?') }
        })
    }
}

#[cfg(test)]
#[path = "symbols_tests.rs"]
mod tests;
