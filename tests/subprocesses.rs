//! Two programs of ours on stratalloc, over the library crates of well-known tools, as processes: `examples/search.rs`
//! (a grep) and `examples/service.rs` (an HTTP service).

#[path = "common/example.rs"]
mod example;
#[path = "common/in_time.rs"]
mod in_time;

use in_time::{output_in_time, status_in_time};
use serde_json::{Value, json};
use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

mod search {
    use super::*;

    /// Every line of every file under `folder` that `column` finds something in, as the example prints it.
    fn naive(folder: &Path, column: fn(&str) -> Option<usize>, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                naive(&path, column, found);
                continue;
            }
            for (line, number) in read_to_string(&path).expect("text").lines().zip(1..) {
                let hit = column(line).map(|at| format!("{}:{number}:{}:{line}", path.display(), at + 1));
                found.extend(hit);
            }
        }
    }

    fn check(pattern: &str, column: fn(&str) -> Option<usize>) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let output = output_in_time(Command::new(example::path("search")).arg(pattern).arg(&sources));
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let mut found: Vec<&str> = text.lines().collect();
        found.sort_unstable();
        let mut expected = Vec::new();
        naive(&sources, column, &mut expected);
        expected.sort_unstable();
        assert!(!expected.is_empty());
        assert_eq!(found, expected);
    }

    #[test]
    fn finds_what_a_naive_search_finds() {
        check("unsafe", |line| line.find("unsafe"));
        check(r"^\s*//! ", |line| line.trim_start().starts_with("//! ").then_some(0));
        check(r"[0-9]+", |line| line.find(|char: char| char.is_ascii_digit()));
    }

    #[test]
    fn says_what_is_wrong() {
        let output = output_in_time(Command::new(example::path("search")).arg("("));
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("unclosed group"), "{output:?}");
    }
}

mod service {
    use super::*;

    const CLIENTS: usize = 8;
    const REQUESTS: usize = 400;
    /// An answer that takes longer does not come.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// The running service; it ends with this value at the latest.
    struct Service {
        process: Child,
        address: SocketAddr,
    }

    impl Service {
        fn start() -> Self {
            let mut process = Command::new(example::path("service")).stdout(Stdio::piped()).spawn().expect("it runs");
            let mut line = String::new();
            let stdout = process.stdout.take().expect("a pipe from the service");
            BufReader::new(stdout).read_line(&mut line).expect("a line");
            let address = line.trim().strip_prefix("listening on ").expect("its address").parse();
            Self { process, address: address.expect("an address") }
        }

        fn connect(&self) -> Connection {
            let stream = TcpStream::connect_timeout(&self.address, DEADLINE).expect("the service listens");
            stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
            stream.set_nodelay(true).expect("an option of the connection");
            Connection(BufReader::new(stream))
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            // It fails if the service has ended by itself, as it should have.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// A connection that is kept for several requests.
    struct Connection(BufReader<TcpStream>);

    impl Connection {
        /// The status and the body that answer a request.
        fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
            let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
            let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            self.0.get_mut().write_all(request.as_bytes()).expect("the service reads");
            self.answer()
        }

        fn line(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a line in time");
            line.trim_end().to_ascii_lowercase()
        }

        fn answer(&mut self) -> (u16, String) {
            let status = self.line();
            let status = status.split(' ').nth(1).expect("a status line").parse().expect("a status");
            let headers: Vec<String> =
                std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect();
            let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            self.0.read_exact(&mut body).expect("the body in time");
            (status, String::from_utf8(body).expect("text"))
        }
    }

    /// Asks for a text whose words are counted beforehand, and checks the answer.
    fn ask(connection: &mut Connection, client: usize, request: usize) {
        let (often, rare) = (1 + request % 100, 1 + client);
        let text = format!("{}{}", "Common ".repeat(often), format!("rare{request} ").repeat(rare));
        let id = client * REQUESTS + request;
        let (status, body) = connection.request("POST", "/words", &json!({ "id": id, "text": text }).to_string());
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(status, 200);
        assert_eq!(answer, json!({ "counts": { "common": often, format!("rare{request}"): rare }, "id": id }));
    }

    #[test]
    fn answers_thousands_of_requests_and_ends() {
        let mut service = Service::start();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let mut connection = service.connect();
                scope.spawn(move || (0..REQUESTS).for_each(|request| ask(&mut connection, client, request)));
            }
        });
        let mut connection = service.connect();
        assert_eq!(connection.request("POST", "/words", r#"{"text": 1}"#).0, 422);
        let (status, stats) = connection.request("GET", "/stats", "");
        assert!(status == 200 && stats.starts_with("active: true\nallocated"), "{stats}");
        assert_eq!(connection.request("POST", "/shutdown", ""), (200, "ending\n".to_owned()));
        drop(connection);
        assert!(status_in_time(&mut service.process).success());
    }
}
