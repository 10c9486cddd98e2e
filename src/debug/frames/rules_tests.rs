use super::{Rule, known, place, remember};
use crate::sync::Relaxed;

#[test]
fn a_rule_says_what_it_was_made_of() {
    for (from_base, offset, saved) in [(true, 16, 16), (false, 8, 0), (false, 1 << 30, 255 * 8), (true, 0, 8)] {
        let rule = Rule::new(from_base, offset, saved).expect("it fits");
        assert_eq!((rule.is_from_base(), rule.offset(), rule.saved()), (from_base, offset, saved));
        assert!(!rule.is_end());
    }
    for (offset, saved) in [(9, 0), (8, 4), (1 << 40, 0), (16, 256 * 8)] {
        assert_eq!(Rule::new(false, offset, saved), None);
    }
    assert!(Rule::END.is_end());
}

#[test]
fn halves_of_two_entries_are_none() {
    // Instructions that nobody has, far from those that other tests walk over.
    let instructions = [usize::MAX - 5, usize::MAX - 77];
    let rules = [Rule::new(true, 16, 16), Rule::new(false, 64, 0)].map(|rule| rule.expect("it fits"));
    assert_eq!(known(instructions[0]), None);
    remember(instructions[0], rules[0]);
    assert_eq!(known(instructions[0]), Some(rules[0]));
    assert_eq!(known(instructions[1]), None);
    place(instructions[0]).rule.store(rules[1].0, Relaxed);
    assert_eq!(known(instructions[0]), None);
}
