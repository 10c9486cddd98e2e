use super::{Home, Module, known, place, remember};
use crate::sync::Relaxed;

#[test]
fn a_home_is_that_of_its_module() {
    // No module is there.
    let module = Module { start: 0x1000, end: 0x9000, tables: 0x2040 };
    let home = Home { base: 0x2000, bytes: 0x1000, header: 0x40 };
    assert_eq!(known(&module), None);
    remember(&module, home);
    assert_eq!(known(&module), Some(home));
    assert_eq!(known(&Module { tables: 0, ..module }), Some(home));
    for other in [Module { end: 0xa000, ..module }, Module { tables: 0x2080, ..module }] {
        assert_eq!(known(&other), None);
    }
    place(&module).words[3].store(0x8000, Relaxed);
    assert_eq!(known(&module), None);
}
