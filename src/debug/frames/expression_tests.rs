use super::super::reader::Reader;
use super::super::registers::{RIP, RSP, Registers};
use super::super::stop::Stop;
use super::super::words::Words;
use super::evaluate;

/// Each word holds twice its address; below 1000 there is nothing.
struct Doubled;

impl Words for Doubled {
    fn word(&mut self, at: usize) -> Option<usize> {
        (at >= 1000).then_some(at.wrapping_mul(2))
    }
}

fn run(code: &[u8], first: Option<usize>) -> Result<usize, Stop> {
    let mut registers = Registers::none();
    registers.set(RSP, 2000);
    registers.set(RIP, 0x40_100b);
    evaluate(Reader::new(code, 0), first, &registers, &mut Doubled)
}

#[test]
fn what_tables_say() {
    // A linkage table: rsp + 8 + ((rip & 15) >= 11) << 3.
    let linkage = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    assert_eq!(run(&linkage, None), Ok(2016));
    // What the kernel saved for a signal handler: *(rsp + 160).
    assert_eq!(run(&[0x77, 0xa0, 1, 0x06], None), Ok(4320));
    assert_eq!(run(&[0x23, 8], Some(5)), Ok(13));
    assert_eq!(run(&[0x0b, 0xfe, 0xff, 0x1e], Some(5)), Ok(usize::MAX - 9));
    assert_eq!(run(&[0x31, 0x32, 0x16, 0x1c], None), Ok(1));
    assert_eq!(run(&[0x31, 0x32, 0x14, 0x22, 0x22], None), Ok(4));
}

#[test]
fn what_nothing_can_be_made_of() {
    assert_eq!(run(&[], None), Err(Stop::End));
    assert_eq!(run(&[0x22], Some(1)), Err(Stop::End));
    assert_eq!(run(&[0x30, 0x06], None), Err(Stop::Unreadable));
    assert_eq!(run(&[0x70, 0], None), Err(Stop::Unknown));
    assert_eq!(run(&[0x92, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0], None), Err(Stop::Unknown));
    assert_eq!(run(&[0x31; 17], None), Err(Stop::End));
    for operation in 0..=u8::MAX {
        let _ = run(&[operation], Some(1));
        let _ = run(&[0x31, 0x09, 0x80, operation, 0xff, 0xff, 0x7f, 0x22], Some(usize::MAX));
    }
}
