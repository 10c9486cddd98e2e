//! The names of files in a unit of `.debug_line`.

use super::elf::Sections;
use super::lines::Unit;
use super::reader::Input;
use super::window::{Part, Stream, Window};

/// The name of a file: texts in the file that is read, each up to its zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    /// Empty for the directory of the compilation.
    pub(super) directory: Part,
    pub(super) file: Part,
}

impl Name {
    /// Whether it is a file of the standard library, as its makers name them.
    pub(super) fn is_of_library(&self, window: &mut Window<'_>) -> bool {
        const FROM_RUST: &[u8] = b"/rustc/";
        let begins = |part| window.text(part, FROM_RUST.len()) == FROM_RUST;
        [self.directory, self.file].map(begins).contains(&true)
    }
}

/// The name of a unit's file number `file`.
pub(super) fn name(window: &mut Window<'_>, sections: &Sections, unit: &Unit, file: u64) -> Option<Name> {
    let mut input = window.stream(unit.names);
    if unit.version >= 5 { described(&mut input, sections, unit, file) } else { listed(&mut input, unit, file) }
}

/// Passes over a text; where it was, and whether it was empty.
fn text(input: &mut Stream<'_, '_>) -> Option<(Part, bool)> {
    let part = input.rest();
    let mut is_empty = true;
    while input.u8()? != 0 {
        is_empty = false;
    }
    Some((part, is_empty))
}

/// The text number `wanted`, counted from 1, of a list that ends with an empty one, behind which `input` stands then.
fn nth_text(input: &mut Stream<'_, '_>, wanted: u64) -> Option<Part> {
    let (mut found, mut number) = (Part::default(), 0_u64);
    loop {
        let (part, is_empty) = text(input)?;
        number += 1;
        if is_empty {
            return Some(found);
        }
        if number == wanted {
            found = part;
        }
    }
}

/// Up to DWARF 4: a list of directories, and one of files with three numbers each.
fn listed(input: &mut Stream<'_, '_>, unit: &Unit, wanted: u64) -> Option<Name> {
    nth_text(input, 0)?;
    let mut number = 0;
    loop {
        let (file, is_empty) = text(input)?;
        number += 1;
        if is_empty {
            return None;
        }
        let (directory, _time, _bytes) = (input.uleb()?, input.uleb()?, input.uleb()?);
        if number == wanted {
            let mut input = input.again(unit.names);
            return Some(Name { directory: nth_text(&mut input, directory)?, file });
        }
    }
}

/// What an entry has, by the numbers of DWARF 5.
mod content {
    pub(super) const PATH: u64 = 1;
    pub(super) const DIRECTORY: u64 = 2;
}

mod form {
    pub(super) const DATA2: u64 = 0x05;
    pub(super) const DATA4: u64 = 0x06;
    pub(super) const DATA8: u64 = 0x07;
    pub(super) const STRING: u64 = 0x08;
    pub(super) const BLOCK: u64 = 0x09;
    pub(super) const DATA1: u64 = 0x0b;
    pub(super) const STRP: u64 = 0x0e;
    pub(super) const UDATA: u64 = 0x0f;
    pub(super) const DATA16: u64 = 0x1e;
    pub(super) const LINE_STRP: u64 = 0x1f;
}

/// Kinds of content that an entry may have.
const CONTENTS: usize = 8;

/// A list of entries: what each has, and how many follow.
struct List {
    contents: [(u64, u64); CONTENTS],
    kinds: usize,
    count: u64,
}

/// An entry: its path, and the number of its directory.
#[derive(Clone, Copy, Default)]
struct Entry {
    path: Part,
    directory: u64,
}

/// DWARF 5: two lists that say what their entries have.
fn described(input: &mut Stream<'_, '_>, sections: &Sections, unit: &Unit, wanted: u64) -> Option<Name> {
    let directories = List::read(input)?;
    directories.nth(input, sections, unit, u64::MAX)?;
    let file = List::read(input)?.nth(input, sections, unit, wanted)??;
    let mut input = input.again(unit.names);
    let directory = List::read(&mut input)?.nth(&mut input, sections, unit, file.directory)??;
    // The first directory is that of the compilation.
    let directory = if file.directory == 0 { Part::default() } else { directory.path };
    Some(Name { directory, file: file.path })
}

impl List {
    fn read(input: &mut Stream<'_, '_>) -> Option<Self> {
        let kinds = usize::from(input.u8()?);
        let mut contents = [(0, 0); CONTENTS];
        for content in contents.get_mut(..kinds)? {
            *content = (input.uleb()?, input.uleb()?);
        }
        // An entry without contents takes no room: there may be any number of them.
        let count = input.uleb()?;
        Some(Self { contents, kinds, count: if kinds == 0 { 0 } else { count } })
    }

    /// The entry number `wanted`, counted from 0, if there is one; `input` stands behind it then, or behind the list.
    fn nth(&self, input: &mut Stream<'_, '_>, sections: &Sections, unit: &Unit, wanted: u64) -> Option<Option<Entry>> {
        for number in 0..self.count {
            let entry = self.entry(input, sections, unit)?;
            if number == wanted {
                return Some(Some(entry));
            }
        }
        Some(None)
    }

    fn entry(&self, input: &mut Stream<'_, '_>, sections: &Sections, unit: &Unit) -> Option<Entry> {
        let mut entry = Entry::default();
        for (content, form) in self.contents.get(..self.kinds)? {
            match *content {
                content::PATH => entry.path = path(input, sections, unit, *form)?,
                content::DIRECTORY => entry.directory = number(input, *form)?,
                _ => skip(input, unit, *form)?,
            }
        }
        Some(entry)
    }
}

fn path(input: &mut Stream<'_, '_>, sections: &Sections, unit: &Unit, form: u64) -> Option<Part> {
    match form {
        form::STRING => text(input).map(|(part, _)| part),
        form::LINE_STRP => Some(sections.line_texts.tail(input.number(unit.offset_bytes)?)),
        form::STRP => Some(sections.texts.tail(input.number(unit.offset_bytes)?)),
        _ => None,
    }
}

fn number(input: &mut Stream<'_, '_>, form: u64) -> Option<u64> {
    match form {
        form::DATA1 => input.number(1),
        form::DATA2 => input.number(2),
        form::DATA4 => input.number(4),
        form::DATA8 => input.number(8),
        form::UDATA => input.uleb(),
        _ => None,
    }
}

fn skip(input: &mut Stream<'_, '_>, unit: &Unit, form: u64) -> Option<()> {
    let bytes = match form {
        form::DATA16 => 16,
        form::BLOCK => input.uleb()?,
        form::STRP | form::LINE_STRP => unit.offset_bytes.into(),
        form::STRING => return text(input).map(|_| ()),
        _ => return number(input, form).map(|_| ()),
    };
    input.skip(bytes)
}
