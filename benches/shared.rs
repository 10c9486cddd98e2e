//! A heap for many processes beside those of others, and beside jemalloc, whose memory is private:
//! `cargo bench --bench shared --features shared [-- ROUNDS]`. All do the same steps, from the same seeds, in rounds in which one
//! after the other is at each row for a short while. The tables have the medians of the ratios within a round.
//!
//! Rows of one thread count CPU time. Those of two threads or processes count time as it passes, so they say something where two
//! processors are free alone.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a bench prints, and shares memory with children"
)]

#[path = "common/cost.rs"]
#[expect(dead_code, reason = "what whole processes take is not asked here")]
mod cost;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/together.rs"]
mod together;

use cost::median;
use memory::{Any, Memory, Peer, Reach, peers};
use std::os::unix::process::CommandExt;
use std::process::Command;
use together::{Meeting, Took, batch_of_one_size, batch_of_sizes, mixed, pair};

/// What loaded libraries want to hear when the program begins: jemalloc needs the room that a program linked with it has, and
/// libpmemobj is to take memory for persistent, so that it asks the system nothing for each block.
const SETTINGS: [(&str, &str); 2] =
    [("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384"), ("PMEM_IS_PMEM_FORCE", "1")];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Pair,
    Batch,
    BatchOfSizes,
    Mixed,
    Threads,
    Processes,
    Alone,
    Beside,
}

/// The rows in groups. In a round one heap after the other is at all rows of a group, and a group has all its rounds before the
/// next begins: who gets stuck at a later one has figures of those before.
const GROUPS: [&[Row]; 6] = [
    &[Row::Pair],
    &[Row::Batch],
    &[Row::BatchOfSizes],
    &[Row::Mixed],
    &[Row::Threads, Row::Processes],
    &[Row::Alone, Row::Beside],
];
const ROWS: usize = 8;

impl Row {
    /// What the table calls it, and what is wanted of our heap: its rate over the first peer's.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pair => ("64 bytes, freed at once", "0.65"),
            Self::Batch => ("100 of 64 bytes, then all freed", "0.55"),
            Self::BatchOfSizes => ("100 of 16 to 1,023 bytes", "0.55"),
            Self::Mixed => ("4,096 of 16 to 2,047, one replaced", "0.70"),
            Self::Threads => ("64 bytes, freed by another thread", ""),
            Self::Processes => ("… by another process", ""),
            Self::Alone => ("replaced in one process", ""),
            Self::Beside => ("… in two at once", ""),
        }
    }

    /// What counts: CPU time, or time as it passes.
    fn of(self, took: &Took) -> f64 {
        match self {
            Self::Pair | Self::Batch | Self::BatchOfSizes | Self::Mixed => took.cpu,
            Self::Threads | Self::Processes | Self::Alone | Self::Beside => took.wall,
        }
    }

    /// The row of the first peer that others are held against: it may not have this one.
    fn first(self) -> Self {
        if self == Self::Processes { Self::Threads } else { self }
    }

    fn is_for(self, reach: Reach) -> bool {
        match self {
            Self::Processes => matches!(reach, Reach::All | Reach::Nothing),
            Self::Alone | Self::Beside => matches!(reach, Reach::All | Reach::Private),
            _ => true,
        }
    }

    /// `None`: it got stuck.
    fn run<M: Memory>(self, memory: &M, meeting: &Meeting) -> Option<Took> {
        match self {
            Self::Pair => Some(pair(memory)),
            Self::Batch => Some(batch_of_one_size(memory)),
            Self::BatchOfSizes => Some(batch_of_sizes(memory)),
            Self::Mixed => Some(mixed(memory)),
            Self::Threads => Some(meeting.between_threads(memory)),
            Self::Processes => meeting.between_processes(memory),
            Self::Alone => meeting.one_by_one(memory),
            Self::Beside => meeting.side_by_side(memory),
        }
    }
}

/// What each peer took at each row, in one round.
type Round = Vec<[Option<Took>; ROWS]>;

fn main() {
    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_none()) {
        let program = std::env::current_exe().expect("the path of this binary");
        panic!("{}", Command::new(program).args(std::env::args_os().skip(1)).envs(SETTINGS).exec());
    }
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(25);
    let (mut peers, meeting) = (peers(), Meeting::new());
    let mut rounds: Vec<Round> = vec![vec![[None; ROWS]; peers.len()]; rounds];
    for group in GROUPS {
        rounds.iter_mut().enumerate().for_each(|(number, round)| go_round(group, round, number, &mut peers, meeting));
    }
    rates(&peers, &rounds);
    over_each(&peers, &rounds);
    beside(&peers, &rounds);
}

/// Each peer at each row of a group. Who begins changes from round to round.
fn go_round(group: &[Row], round: &mut Round, number: usize, peers: &mut [Peer], meeting: &Meeting) {
    for at in 0..peers.len() {
        let at = (at + number) % peers.len();
        let peer = &mut peers[at];
        for row in group.iter().filter(|row| row.is_for(peer.reach)) {
            if peer.stuck {
                break;
            }
            let took = match &peer.memory {
                Any::Ours(memory) => row.run(memory, meeting),
                Any::Loaded(memory) => row.run(memory, meeting),
                Any::Nothing(memory) => row.run(memory, meeting),
            };
            if took.is_none() {
                println!("STUCK: {} at: {}; it is not asked again", peer.name, row.words().0);
                peer.stuck = true;
            }
            round[at][*row as usize] = took;
        }
    }
}

/// The median over the rounds that have such a figure.
fn over(rounds: &[Round], figure: impl Fn(&Round) -> Option<f64>, width: usize, digits: usize) -> String {
    let figures: Vec<f64> = rounds.iter().filter_map(figure).collect();
    if figures.is_empty() { format!("{:>width$}", "–") } else { format!("{:width$.digits$}", median(figures)) }
}

/// A peer's time at a row, in a round.
fn time(round: &Round, peer: usize, row: Row) -> Option<f64> {
    round[peer][row as usize].as_ref().map(|took| row.of(took))
}

/// Rates over the first peer's.
fn rates(peers: &[Peer], rounds: &[Round]) {
    let first = format!("{}, ns", peers[0].name);
    let names: String = peers[1..].iter().map(|peer| format!("{:>14}", peer.name)).collect();
    println!("{:36}{first:>14}{names}{:>10}", "rate, of the first's", "wanted");
    for row in GROUPS.into_iter().flatten().copied() {
        let first = over(rounds, |round| time(round, 0, row), 14, 1);
        let rate =
            |peer| over(rounds, |round: &Round| Some(time(round, 0, row.first())? / time(round, peer, row)?), 14, 3);
        let rates: String = (1..peers.len()).map(rate).collect();
        let (name, wanted) = row.words();
        println!("{name:36}{first}{rates}{wanted:>10}");
    }
}

/// Our rate over each other's.
fn over_each(peers: &[Peer], rounds: &[Round]) {
    let ours = peers.iter().position(|peer| matches!(peer.memory, Any::Ours(_))).expect("ours");
    let names: String = peers.iter().map(|peer| format!("{:>14}", peer.name)).collect();
    println!("\n{:36}{names}", "stratalloc's rate, of each one's");
    for row in GROUPS.into_iter().flatten().copied() {
        let rate = |peer| over(rounds, |round: &Round| Some(time(round, peer, row)? / time(round, ours, row)?), 14, 2);
        println!("{:36}{}", row.words().0, (0..peers.len()).map(rate).collect::<String>());
    }
}

/// What two processes do together over what one does, and over that of the first peer.
fn beside(peers: &[Peer], rounds: &[Round]) {
    let names: String = peers.iter().map(|peer| format!("{:>14}", peer.name)).collect();
    println!("\n{:36}{names}{:>10}", "two processes' rate, of one's", "wanted");
    let line = |name: &str, of: fn(&Took) -> f64, wanted: &str| {
        let gain = |round: &Round, peer: usize| {
            let took = |row: Row| round[peer][row as usize].as_ref().map(of);
            Some(took(Row::Alone)? / took(Row::Beside)?)
        };
        let gains = (0..peers.len()).map(|peer| over(rounds, |round| gain(round, peer), 14, 2));
        println!("{name:36}{}{wanted:>10}", gains.collect::<String>());
        let gains =
            (0..peers.len()).map(|peer| over(rounds, |round| Some(gain(round, peer)? / gain(round, 0)?), 14, 2));
        println!("{:36}{}", "… of the first's", gains.collect::<String>());
    };
    line("as time passes", |took| took.wall, "1.90");
    line("by CPU time", |took| took.cpu, "");
    println!("({}'s two processes have a heap each: so much the machine itself allows.)", peers[0].name);
}
