//! A server after Larson and Krishnan (ISMM 1998): a thread replaces blocks at random, ends, and its successor takes
//! over what it held.
//!
//! Holds 10,000 blocks per thread, mostly of 8 to 1,024 bytes: 6 MB per thread.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};
use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, spawn};

const SLOTS: usize = 10_000;
const GENERATION: usize = 100_000;
const OPERATIONS: usize = 24_000_000;

/// What a thread works on and hands on.
struct Lane {
    number: usize,
    generations: usize,
    random: Random,
    slots: Vec<Block>,
    checksum: u64,
}

pub(super) fn prepare(scale: f64, threads: usize) -> Work {
    Box::new(move || {
        let generations = scaled(OPERATIONS / GENERATION / threads, scale);
        let (sender, receiver) = channel();
        let start = |number| Some(spawn_generation(Lane::new(number, generations), sender.clone()));
        let mut handles: Vec<Option<JoinHandle<()>>> = (0..threads).map(start).collect();
        let (mut running, mut checksum) = (threads, 0_u64);
        while running > 0 {
            let lane = receiver.recv().expect("a thread reports before it ends");
            let number = lane.number;
            handles[number].take().map(JoinHandle::join).expect("it was started").expect("the thread ends well");
            if lane.generations > 0 {
                handles[number] = Some(spawn_generation(lane, sender.clone()));
            } else {
                running -= 1;
                checksum = checksum.wrapping_add(lane.checksum);
            }
        }
        Outcome::of((threads * generations * GENERATION) as u64, checksum)
    })
}

fn spawn_generation(mut lane: Lane, done: Sender<Lane>) -> JoinHandle<()> {
    spawn(move || {
        lane.live();
        done.send(lane).expect("the first thread listens");
    })
}

fn block(random: &mut Random) -> Block {
    let large = random.below(200) == 0;
    let size = if large { random.within(1025, 16 << 10) } else { random.within(8, 1024) };
    Block::new(size, size as u8)
}

impl Lane {
    fn new(number: usize, generations: usize) -> Self {
        Self { number, generations, random: Random::new(8 + number as u64), slots: Vec::new(), checksum: 0 }
    }

    fn live(&mut self) {
        while self.slots.len() < SLOTS {
            self.slots.push(block(&mut self.random));
        }
        for _ in 0..GENERATION {
            let slot = self.random.below(SLOTS);
            let old = std::mem::replace(&mut self.slots[slot], block(&mut self.random));
            self.checksum += old.marks();
        }
        self.generations -= 1;
    }
}
