//! A tokio server whose worker threads give their caches back whenever they have nothing to do.
//!
//! ```sh
//! cargo run --release --example server
//! ```
//!
//! It echoes: each request is taken apart into words, kept for a while with the connection's latest ones, and put
//! together again. It serves a bounded number of requests of its own clients over the loopback interface, says how much
//! memory was resident under that load and after a second of rest, and ends.

#[path = "work/report.rs"]
mod report;

use report::{Resident, complain, resident, say};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::sleep;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const WORKERS: usize = 4;
const CLIENTS: usize = 64;
/// Requests that one client makes.
const REQUESTS: usize = 1_600;
/// Requests that a connection remembers.
const REMEMBERED: usize = 64;
/// Bytes of a request, at the most.
const REQUEST_MAX: usize = 1 << 20;
/// How often the memory is looked at under load.
const LOOK: Duration = Duration::from_millis(20);

fn main() -> io::Result<()> {
    let runtime = runtime()?;
    say(format_args!("at the start          {}", resident()));
    let start = Instant::now();
    let most = runtime.block_on(load())?;
    let (requests, seconds) = (CLIENTS * REQUESTS, start.elapsed().as_secs_f64());
    say(format_args!("under load, the most  {most}  ({requests} requests in {seconds:.2} s)"));
    std::thread::sleep(Duration::from_secs(1));
    say(format_args!("after a second idle   {}", resident()));
    say(format_args!("\n{}", Stratalloc::stats()));
    Ok(())
}

/// A runtime with the one line that matters here.
fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().on_thread_park(Stratalloc::thread_park).build()
}

/// Starts the server, lets all clients talk to it, and returns the most memory that was seen resident.
async fn load() -> io::Result<Resident> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let server = listener.local_addr()?;
    tokio::spawn(serve(listener));
    let clients: JoinSet<_> = (0..CLIENTS).map(|seed| client(server, seed)).collect();
    let mut clients = pin!(clients.join_all());
    let mut most = resident();
    loop {
        tokio::select! {
            outcomes = &mut clients => return outcomes.into_iter().collect::<io::Result<()>>().map(|()| most),
            () = sleep(LOOK) => most = most.max(resident()),
        }
    }
}

/// Serves every connection in a task of its own.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async {
            if let Err(error) = converse(stream).await {
                complain(format_args!("a connection ended: {error}"));
            }
        });
    }
}

/// Answers the requests of one connection until it is closed.
async fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut remembered = VecDeque::new();
    while let Some(request) = read_message(&mut stream).await? {
        let words: Vec<String> = request.split(' ').map(String::from).collect();
        write_message(&mut stream, &words.join(" ")).await?;
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(words);
    }
    Ok(())
}

/// Makes `REQUESTS` requests, each different, and checks every answer.
async fn client(server: SocketAddr, seed: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    for number in 0..REQUESTS {
        let request = request(seed * REQUESTS + number);
        write_message(&mut stream, &request).await?;
        if read_message(&mut stream).await?.as_ref() != Some(&request) {
            return Err(io::Error::new(ErrorKind::InvalidData, "the echo is not what was sent"));
        }
    }
    Ok(())
}

/// From 1 to 512 words of 1 to 24 letters.
fn request(number: usize) -> String {
    let words = 1 + number * 0x9E37 % 512;
    let word = |at: usize| "abcdefghijklmnopqrstuvwx"[..1 + (number + at) * 7 % 24].to_owned();
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// Reads a message, its length first; `None` when the other side has closed.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let length = match stream.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > REQUEST_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a message is longer than 1 MiB"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    String::from_utf8(message).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Writes a message in one piece, so that nothing waits for the rest of it.
async fn write_message(stream: &mut TcpStream, message: &str) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    stream.write_all(&[&length.to_be_bytes(), message.as_bytes()].concat()).await
}
