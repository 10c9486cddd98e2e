//! A pipeline of two threads: the reader allocates all records, the writer frees them.
//!
//! Holds 64 batches of 1,000 boxes between the two, some 20 MB at peak.

use super::block::Block;
use super::random::{Random, mix};
use super::{Outcome, Work, scaled};
use std::sync::mpsc::sync_channel;

const BATCH: usize = 1000;
const BATCHES: usize = 4_000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let batches = scaled(BATCHES, scale);
        let (sender, receiver) = sync_channel::<Vec<Box<Block>>>(64);
        let consumer = std::thread::spawn(move || {
            let marks = |batch: Vec<Box<Block>>| batch.iter().map(|block| block.marks()).sum();
            receiver.iter().fold(0, |checksum, batch| mix(checksum, marks(batch)))
        });
        let producer = std::thread::spawn(move || {
            let mut random = Random::new(6);
            for _ in 0..batches {
                let block = |at: usize| Box::new(Block::new(random.size(16, 512), at as u8));
                sender.send((0..BATCH).map(block).collect()).expect("the consumer listens");
            }
        });
        producer.join().expect("the producer ends well");
        let checksum = consumer.join().expect("the consumer ends well");
        Outcome::of((2 * BATCH * batches) as u64, checksum)
    })
}
