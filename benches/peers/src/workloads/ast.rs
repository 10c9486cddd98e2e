//! A compiler's front end: an expression tree of boxed nodes is built, evaluated, rewritten and dropped.
//!
//! Holds one tree, and the part of the next that is rewritten so far: some 95 MB at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, rounds_of};

const NODES: usize = 900_000;
const ROUNDS: usize = 2;

/// An expression.
#[expect(clippy::vec_box, reason = "syntax trees do box their arguments one by one")]
enum Expr {
    Number(i64),
    Text(String),
    Name(String),
    Negate(Box<Expr>),
    Binary(char, Box<Expr>, Box<Expr>),
    Call(String, Vec<Box<Expr>>),
}

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let (rounds, nodes) = rounds_of(NODES, scale);
        let mut checksum = 0;
        for seed in 0..(ROUNDS * rounds) as u64 {
            let mut tree = build(&mut Random::new(15 + seed), nodes);
            checksum = mix(checksum, evaluate(&tree) as u64);
            tree = rewrite(tree);
            checksum = mix(checksum, evaluate(&tree) as u64 ^ count(&tree));
        }
        Outcome::of((ROUNDS * rounds * nodes) as u64, checksum)
    })
}

/// A tree of about that many nodes.
fn build(random: &mut Random, nodes: usize) -> Expr {
    if nodes <= 1 {
        return match random.below(3) {
            0 => Expr::Number(random.below(1000) as i64),
            1 => Expr::Text(random.word().repeat(random.within(1, 6))),
            _ => Expr::Name(format!("{}_{}", random.word(), random.below(1000))),
        };
    }
    let rest = nodes - 1;
    match random.below(8) {
        0 => Expr::Negate(Box::new(build(random, rest))),
        1..=5 => {
            let left = rest * random.within(2, 6) / 8;
            let operator = ['+', '-', '*', '&'][random.below(4)];
            Expr::Binary(operator, Box::new(build(random, left)), Box::new(build(random, rest - left)))
        }
        _ => {
            let count = random.within(1, 6).min(rest);
            let arguments = (0..count).map(|_| Box::new(build(random, rest / count))).collect();
            Expr::Call(random.word().to_owned(), arguments)
        }
    }
}

fn evaluate(expr: &Expr) -> i64 {
    match expr {
        Expr::Number(number) => *number,
        Expr::Text(text) | Expr::Name(text) => text.len() as i64,
        Expr::Negate(inner) => evaluate(inner).wrapping_neg(),
        Expr::Binary(operator, left, right) => apply(*operator, evaluate(left), evaluate(right)),
        Expr::Call(name, arguments) => arguments
            .iter()
            .fold(name.len() as i64, |sum, argument| sum.rotate_left(3).wrapping_add(evaluate(argument))),
    }
}

fn apply(operator: char, left: i64, right: i64) -> i64 {
    match operator {
        '+' => left.wrapping_add(right),
        '-' => left.wrapping_sub(right),
        '*' => left.wrapping_mul(right),
        _ => left & right,
    }
}

fn count(expr: &Expr) -> u64 {
    1 + match expr {
        Expr::Number(_) | Expr::Text(_) | Expr::Name(_) => 0,
        Expr::Negate(inner) => count(inner),
        Expr::Binary(_, left, right) => count(left) + count(right),
        Expr::Call(_, arguments) => arguments.iter().map(|argument| count(argument)).sum(),
    }
}

/// Folds constants, turns negations into subtractions and names into calls: every node is made anew.
fn rewrite(expr: Expr) -> Expr {
    match expr {
        Expr::Number(number) => Expr::Number(number ^ 1),
        Expr::Text(text) => Expr::Text(text.to_uppercase()),
        Expr::Name(name) => Expr::Call(name, vec![Box::new(Expr::Number(1))]),
        Expr::Negate(inner) => Expr::Binary('-', Box::new(Expr::Number(0)), Box::new(rewrite(*inner))),
        Expr::Binary(operator, left, right) => match (rewrite(*left), rewrite(*right)) {
            (Expr::Number(left), Expr::Number(right)) => Expr::Number(apply(operator, left, right)),
            (left, right) => Expr::Binary(operator, Box::new(left), Box::new(right)),
        },
        Expr::Call(name, arguments) => {
            let rewritten = arguments.into_iter().map(|argument| Box::new(rewrite(*argument)));
            Expr::Call(name + "_2", rewritten.collect())
        }
    }
}
