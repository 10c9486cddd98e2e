//! An asynchronous service: boxed messages pass through channels, and each batch spawns short tasks.
//!
//! Memory stays small: four channels of 256 messages, and the tasks' own state.

use super::random::Random;
use super::{Outcome, Work, scaled};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const LANES: u64 = 4;
const MESSAGES: usize = 500_000;

/// What is sent.
struct Message {
    number: u64,
    payload: Vec<u8>,
    route: String,
}

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let messages = scaled(MESSAGES, scale);
        let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime can be started");
        let checksum = runtime.block_on(async move {
            let lanes: Vec<_> = (0..LANES).map(|lane| tokio::spawn(run_lane(lane, messages))).collect();
            let mut sum = 0_u64;
            for lane in lanes {
                sum = sum.wrapping_add(lane.await.expect("the task ends well"));
            }
            sum
        });
        drop(runtime);
        Outcome::of(LANES * messages as u64, checksum)
    })
}

async fn run_lane(lane: u64, messages: usize) -> u64 {
    let (sender, receiver) = channel(256);
    let producer = tokio::spawn(produce(lane, messages, sender));
    let sum = consume(receiver).await;
    producer.await.expect("the task ends well");
    sum
}

async fn produce(lane: u64, messages: usize, sender: Sender<Box<Message>>) {
    let mut random = Random::new(5 + lane);
    for number in 0..messages as u64 {
        let payload = vec![number as u8; random.size(32, 2048)];
        let message = Message { number, payload, route: format!("/{}/{lane}", random.word()) };
        if sender.send(Box::new(message)).await.is_err() {
            return;
        }
    }
}

async fn consume(mut receiver: Receiver<Box<Message>>) -> u64 {
    let (mut sum, mut tasks) = (0_u64, Vec::new());
    while let Some(message) = receiver.recv().await {
        if message.number % 4 == 0 {
            tasks.push(tokio::spawn(async move { answer(&message) }));
        } else {
            sum = sum.wrapping_add(answer(&message));
        }
        if tasks.len() == 64 {
            sum = sum.wrapping_add(finish(&mut tasks).await);
        }
    }
    sum.wrapping_add(finish(&mut tasks).await)
}

async fn finish(tasks: &mut Vec<tokio::task::JoinHandle<u64>>) -> u64 {
    let mut sum = 0_u64;
    for task in tasks.drain(..) {
        sum = sum.wrapping_add(task.await.expect("the task ends well"));
    }
    sum
}

fn answer(message: &Message) -> u64 {
    let text = format!("{} {} {}", message.route, message.number, message.payload.len());
    text.bytes().fold(message.payload.last().map_or(0, |byte| u64::from(*byte)), |sum, byte| {
        sum * 31 % 65_521 + u64::from(byte)
    })
}
