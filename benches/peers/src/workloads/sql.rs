//! A query engine's front end: SQL statements become syntax trees, and some stay in a plan cache.
//!
//! Holds the latest two thousand trees, some 70 MB at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, scaled};
use sqlparser::ast::Statement;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use std::collections::VecDeque;

const TEXTS: usize = 500;
const HELD: usize = 2000;
const STATEMENTS: usize = 25_000;

pub(super) fn prepare(scale: f64) -> Work {
    let mut random = Random::new(17);
    let texts: Vec<String> = (0..TEXTS).map(|_| statement(&mut random)).collect();
    Box::new(move || {
        let statements = scaled(STATEMENTS, scale);
        let mut held: VecDeque<Vec<Statement>> = VecDeque::with_capacity(HELD);
        let mut checksum = 0;
        for (number, text) in texts.iter().cycle().take(statements).enumerate() {
            let parsed = Parser::parse_sql(&GenericDialect {}, text).expect("the generated text is SQL");
            if number % 16 == 0 {
                checksum = mix(checksum, parsed.iter().map(|one| one.to_string().len() as u64).sum());
            }
            if held.len() == HELD {
                held.pop_front();
            }
            held.push_back(parsed);
        }
        Outcome::of(statements as u64, checksum)
    })
}

fn statement(random: &mut Random) -> String {
    let (table, other) = (random.word(), random.word());
    match random.below(6) {
        0 => format!("INSERT INTO {table} (id, name, price) VALUES {}", rows(random)),
        1 => format!("UPDATE {table} SET name = '{other}', price = price * 1.1 WHERE {}", condition(random, 2)),
        2 => format!("DELETE FROM {table} WHERE {}", condition(random, 2)),
        3 => format!("CREATE TABLE {table}_{} (id BIGINT PRIMARY KEY, name VARCHAR(80) NOT NULL)", random.below(100)),
        _ => format!(
            "SELECT a.{0}, SUM(b.{1}) AS total, CASE WHEN a.x > 1 THEN 'y' ELSE 'n' END FROM {table} AS a \
             LEFT JOIN {other} AS b ON a.id = b.id WHERE {2} GROUP BY a.{0} HAVING COUNT(*) > 3 ORDER BY total DESC",
            random.word(),
            random.word(),
            condition(random, 3)
        ),
    }
}

fn rows(random: &mut Random) -> String {
    let row = |at: usize| format!("({at}, '{}', {}.5)", random.word(), random.below(1000));
    (0..8).map(row).collect::<Vec<_>>().join(", ")
}

fn condition(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return match random.below(3) {
            0 => format!("{} = {}", random.word(), random.below(1000)),
            1 => format!("{} LIKE '{}%'", random.word(), random.word()),
            _ => format!("{} IN (1, 2, {})", random.word(), random.below(1000)),
        };
    }
    let operator = ["AND", "OR"][random.below(2)];
    format!("({} {operator} {})", condition(random, depth - 1), condition(random, depth - 1))
}
