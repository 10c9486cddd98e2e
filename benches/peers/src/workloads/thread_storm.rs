//! A program that starts a thread for each task: thousands of short threads, some of whose blocks outlive them.
//!
//! Holds sixteen threads' blocks, and what the latest 200 threads handed on: some 10 MB at peak.

use super::block::Block;
use super::random::{Random, mix};
use super::{Outcome, Work, scaled};
use std::collections::VecDeque;
use std::thread::{JoinHandle, spawn};

const THREADS: usize = 8000;
const ALIVE: usize = 16;
const BLOCKS: usize = 300;
const HANDED_ON: usize = 30;
const HELD: usize = 200;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let threads = scaled(THREADS, scale);
        let mut alive: VecDeque<JoinHandle<Vec<Block>>> = VecDeque::with_capacity(ALIVE);
        let mut held: VecDeque<Vec<Block>> = VecDeque::with_capacity(HELD);
        let mut checksum = 0;
        for number in 0..threads as u64 {
            if alive.len() == ALIVE {
                checksum = mix(checksum, end_oldest(&mut alive, &mut held));
            }
            alive.push_back(spawn(move || task(number)));
        }
        while !alive.is_empty() {
            checksum = mix(checksum, end_oldest(&mut alive, &mut held));
        }
        Outcome::of(threads as u64, checksum)
    })
}

fn end_oldest(alive: &mut VecDeque<JoinHandle<Vec<Block>>>, held: &mut VecDeque<Vec<Block>>) -> u64 {
    let Some(oldest) = alive.pop_front() else { return 0 };
    let blocks = oldest.join().expect("the thread ends well");
    let sum = blocks.iter().map(Block::marks).sum();
    if held.len() == HELD {
        held.pop_front();
    }
    held.push_back(blocks);
    sum
}

fn task(number: u64) -> Vec<Block> {
    let mut random = Random::new(20 + number);
    let mut blocks: Vec<Block> = (0..BLOCKS).map(|at| Block::new(random.size(16, 2048), at as u8)).collect();
    while blocks.len() > HANDED_ON {
        blocks.swap_remove(random.below(blocks.len()));
    }
    blocks
}
