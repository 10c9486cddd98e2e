//! Ranges against a list of them.

use super::{Id, Key, Ranges};
use crate::os::Span;
use crate::rows::random::Random;

fn key(random: &mut Random) -> Key {
    let at = random.below(300);
    Key { at, end: at + 1 + random.below(60), tag: random.below(3) as u64 }
}

#[test]
fn ranges_are_what_a_list_of_them_is() {
    let mut random = Random::new(77);
    let mut ranges = Ranges::new();
    let mut list: Vec<(Key, u32, Id)> = Vec::new();
    for step in 0..20_000 {
        if random.below(100) < 45 + 10 * (step / 2000 % 2) {
            let key = key(&mut random);
            let id = ranges.enter(key, step as u32).expect("memory");
            list.push((key, step as u32, id));
        } else if !list.is_empty() {
            let (key, value, id) = list.swap_remove(random.below(list.len()));
            assert_eq!((ranges.key(id), *ranges.value(id)), (key, value));
            ranges.remove(id);
            assert_eq!(ranges.give_back(id), value);
        }
        assert_eq!(ranges.len(), list.len());
        let asked = key(&mut random);
        assert_eq!(ranges.find(asked).is_some(), list.iter().any(|(key, ..)| *key == asked));
        let around = ranges.around(asked.span(), &|value| value % 3 != 0);
        let is_around = |key: &Key| key.at <= asked.at && key.end >= asked.end;
        assert_eq!(around.is_some(), list.iter().any(|(key, value, _)| is_around(key) && value % 3 != 0));
        assert!(around.is_none_or(|id| is_around(&ranges.key(id)) && ranges.value(id) % 3 != 0));
        if step % 16 == 0 {
            let mut met = Vec::new();
            let none = ranges.overlapping(asked.span(), &mut |key, value| {
                met.push((key, *value));
                false
            });
            assert!(none.is_none() && met.is_sorted_by_key(|(key, _)| *key), "in order");
            let overlaps = |key: &Key| key.at < asked.end && key.end > asked.at;
            let mut should: Vec<_> =
                list.iter().map(|(key, value, _)| (*key, *value)).filter(|(key, _)| overlaps(key)).collect();
            should.sort_unstable();
            met.sort_unstable();
            assert_eq!(met, should);
        }
    }
}

#[test]
fn what_is_left_is_dropped_once() {
    let token = std::sync::Arc::new(());
    let mut ranges = Ranges::new();
    let ids: Vec<Id> = (0..500)
        .map(|at| ranges.enter(Key { at: at * 7, end: at * 7 + 9, tag: 0 }, token.clone()).expect("memory"))
        .collect();
    for id in ids.iter().step_by(2) {
        ranges.remove(*id);
        drop(ranges.give_back(*id));
    }
    assert_eq!(std::sync::Arc::strong_count(&token), 251);
    drop(ranges);
    assert_eq!(std::sync::Arc::strong_count(&token), 1);
}

#[test]
fn empty_and_endless_ranges_have_no_key() {
    assert_eq!(Key::of(Span { at: 8, bytes: 0 }, 0), None);
    assert_eq!(Key::of(Span { at: usize::MAX, bytes: 2 }, 0), None);
}
