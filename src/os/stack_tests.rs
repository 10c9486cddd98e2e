use super::{PAGE, readable_until, stack_end};
use crate::os::memory::tests::with_pages;

#[test]
fn pages_that_can_be_read_are_told_apart() {
    with_pages(|start| {
        let end = start + 2 * PAGE;
        assert_eq!(readable_until(start + 100, end), end);
        assert_eq!(readable_until(start, end - 8), end - 8);
        assert_eq!(readable_until(start, end + 8), end);
        assert_eq!(readable_until(0, PAGE), 0);
    });
    let many = vec![1_u8; 300 * PAGE];
    let at = many.as_ptr() as usize;
    assert_eq!(readable_until(at, at + many.len()), at + many.len());
}

#[test]
fn a_stack_lies_below_its_end() {
    let here = 0;
    let here = &raw const here as usize;
    let end = stack_end().expect("a thread of the C library");
    assert!(end > here && end - here < 64 << 20);
    assert_eq!(readable_until(here, end), end);
}
