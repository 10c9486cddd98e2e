//! Workloads of real libraries on the process heap: serde_json, regex, tokio and rayon. What each must yield is known
//! without it, by counting or by formatting.

use regex::{Regex, RegexSet};
use serde_json::{Value, json};
use std::collections::HashMap;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

#[test]
fn the_process_allocates_here() {
    assert!(Stratalloc::is_active());
    let stats = Stratalloc::stats();
    assert!(stats.allocated > 0 && stats.allocated <= stats.mapped, "{stats}");
}

mod json_document {
    use super::*;
    use std::fmt::Write;

    const RECORDS: usize = 20_000;

    /// A record as serde_json prints it: keys in order, no space.
    fn record(id: usize, scale: usize, seen: &str) -> String {
        let (name, score) = (format!("name \\\"{id}\\\" \\n"), (id * scale) as f64 / 2.0);
        let text = "lorem ipsum ".repeat(id % 20);
        format!(
            r#"{{"deep":{{"list":[{id},[{id},null]],"text":"{text}"}},"id":{id},"name":"{name}","score":{score:?}{seen}}}"#
        )
    }

    fn document(records: impl Iterator<Item = String>) -> String {
        let mut text = String::from("[");
        for (at, record) in records.enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(text, "{comma}{record}").expect("a string takes everything");
        }
        text + "]"
    }

    /// Every third record leaves, the others have their score doubled and a new key.
    fn mutate(records: &mut Vec<Value>) {
        records.retain(|record| record["id"].as_u64().is_some_and(|id| id % 3 != 0));
        for record in records {
            record["score"] = json!(record["score"].as_f64().map(|score| score * 2.0));
            record["seen"] = json!(true);
        }
    }

    fn print(document: &Value) -> String {
        serde_json::to_string(document).expect("text")
    }

    #[test]
    fn parsed_changed_and_printed() {
        let text = document((0..RECORDS).map(|id| record(id, 1, "")));
        assert!(text.len() > 4 << 20);
        let mut parsed: Value = serde_json::from_str(&text).expect("our own document");
        assert!(print(&parsed) == text, "printed as it was");
        mutate(parsed.as_array_mut().expect("a list"));
        let expected = document((0..RECORDS).filter(|id| id % 3 != 0).map(|id| record(id, 2, r#","seen":true"#)));
        assert!(print(&parsed) == expected, "printed as changed");
        let pretty = serde_json::to_string_pretty(&parsed).expect("text");
        assert!(serde_json::from_str::<Value>(&pretty).expect("our own document") == parsed);
    }
}

mod patterns {
    use super::*;

    const KEYS: usize = 100;
    const TOKENS: usize = 5_000;

    fn haystack() -> String {
        (0..TOKENS).map(|i| format!("line {i}: key{}={} end\n", i % KEYS, i * 7)).collect()
    }

    fn pattern(key: usize) -> String {
        format!(r"(?m)^line \d+: (?P<key>key{key})=(?P<value>[0-9]+) end$")
    }

    /// How often the pattern of `key` matches, and the sum of the values it captures.
    fn search(key: usize, text: &str) -> (usize, usize) {
        let regex = Regex::new(&pattern(key)).expect("a pattern");
        let values = regex.captures_iter(text).map(|found| found["value"].parse::<usize>().expect("digits"));
        values.fold((0, 0), |(count, sum), value| (count + 1, sum + value))
    }

    #[test]
    fn a_hundred_compiled_and_searched() {
        let text = haystack();
        for key in 0..KEYS {
            let sum = (key..TOKENS).step_by(KEYS).map(|i| i * 7).sum();
            assert_eq!(search(key, &text), (TOKENS / KEYS, sum), "key{key}");
        }
    }

    #[test]
    fn a_hundred_in_one_set() {
        let set = RegexSet::new((0..KEYS).map(|key| format!("key{key}="))).expect("patterns");
        for (i, line) in haystack().lines().enumerate() {
            let found: Vec<usize> = set.matches(line).into_iter().collect();
            assert_eq!(found, [i % KEYS], "{line}");
        }
    }
}

mod tasks {
    use tokio::sync::{mpsc, oneshot};

    const TASKS: usize = 10_000;

    /// A text to be turned round, and where the answer goes.
    type Request = (String, oneshot::Sender<String>);

    fn text(task: usize) -> String {
        format!("task {task} ").repeat(1 + task % 50)
    }

    async fn serve(mut requests: mpsc::Receiver<Request>) -> usize {
        let mut served = 0;
        while let Some((text, answer)) = requests.recv().await {
            answer.send(text.chars().rev().collect()).expect("the task waits");
            served += 1;
        }
        served
    }

    async fn ask(task: usize, requests: mpsc::Sender<Request>) -> bool {
        let (answer, answered) = oneshot::channel();
        requests.send((text(task), answer)).await.expect("the consumer is there");
        let back: String = answered.await.expect("an answer").chars().rev().collect();
        back == text(task)
    }

    async fn run() -> (usize, usize) {
        let (requests, inbox) = mpsc::channel(64);
        let consumer = tokio::spawn(serve(inbox));
        let producers: Vec<_> = (0..TASKS).map(|task| tokio::spawn(ask(task, requests.clone()))).collect();
        drop(requests);
        let mut right = 0;
        for producer in producers {
            right += usize::from(producer.await.expect("no task panics"));
        }
        (right, consumer.await.expect("the consumer ends"))
    }

    #[test]
    fn ten_thousand_ask_one_over_channels() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(4).enable_all().build().expect("a runtime");
        assert_eq!(runtime.block_on(run()), (TASKS, TASKS));
    }
}

mod parallel {
    use super::*;
    use rayon::prelude::*;

    /// A prime, so that every factor below it permutes the numbers below it.
    const STRINGS: usize = 200_003;
    const GROUPS: usize = 1000;

    fn shuffled() -> Vec<String> {
        (0..STRINGS).into_par_iter().map(|i| format!("{:07}", i * 77_777 % STRINGS)).collect()
    }

    type Groups = HashMap<String, Vec<String>>;

    fn add(mut groups: Groups, text: String) -> Groups {
        groups.entry(text[4..].to_owned()).or_default().push(text);
        groups
    }

    fn merge(mut groups: Groups, others: Groups) -> Groups {
        for (key, mut texts) in others {
            groups.entry(key).or_default().append(&mut texts);
        }
        groups
    }

    #[test]
    fn sorted() {
        let mut strings = shuffled();
        strings.par_sort();
        assert_eq!(strings.len(), STRINGS);
        assert!(strings.iter().enumerate().all(|(i, text)| *text == format!("{i:07}")));
    }

    #[test]
    fn grouped_by_their_last_digits() {
        let groups = shuffled().into_par_iter().fold(Groups::new, add).reduce(Groups::new, merge);
        assert_eq!(groups.len(), GROUPS);
        for (key, mut texts) in groups {
            texts.sort();
            let first: usize = key.parse().expect("digits");
            assert!(texts.into_iter().eq((first..STRINGS).step_by(GROUPS).map(|i| format!("{i:07}"))), "{key}");
        }
    }
}
