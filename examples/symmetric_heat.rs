//! How heat spreads in a plate: each PE has some of its rows in its symmetric heap, and puts the outermost of them to its neighbours after each
//! step. However many PEs there are, the plate comes out the same, to the last bit:
//!
//! ```text
//! stratalloc run -n 4 -- target/release/examples/symmetric_heat [PICTURE.bmp]
//! ```

#![expect(clippy::disallowed_macros, reason = "an example says what it finds")]

use std::env;
use std::error::Error;
use std::fs;
use stratalloc::symmetric::{self, SymSlice, SymmetricError};

/// Cells in a row, rows, and steps.
const WIDTH: usize = 384;
const HEIGHT: usize = 256;
const STEPS: usize = 2000;

/// What one PE has of the plate: its rows, and one more above and below, which are its neighbours' or the edge.
struct Part {
    /// The first of its rows, and how many.
    first: usize,
    rows: usize,
    /// The temperatures of this step, and of the next.
    now: SymSlice<f64>,
    next: SymSlice<f64>,
}

/// The rows of a PE.
fn rows_of(pe: usize) -> (usize, usize) {
    let pes = symmetric::n_pes();
    let (first, end) = (HEIGHT * pe / pes, HEIGHT * (pe + 1) / pes);
    (first, end - first)
}

/// How hot the edge is for ever: the left end of the upper edge, and a spot on the lower one.
fn edge(row: isize, column: usize) -> f64 {
    let is_hot =
        row < 0 && column < WIDTH / 2 || row == HEIGHT as isize && (WIDTH / 2..WIDTH / 2 + 40).contains(&column);
    f64::from(u8::from(is_hot)) * 100.0
}

impl Part {
    fn new() -> Result<Self, SymmetricError> {
        let (first, rows) = rows_of(symmetric::my_pe());
        // On every PE as many, whoever has most.
        let cells = (HEIGHT.div_ceil(symmetric::n_pes()) + 2) * WIDTH;
        let part = Self { first, rows, now: SymSlice::new(cells)?, next: SymSlice::new(cells)? };
        for slice in [&part.now, &part.next] {
            for row in [0, rows + 1] {
                let line: Vec<f64> = (0..WIDTH).map(|column| edge((first + row) as isize - 1, column)).collect();
                slice.write(row * WIDTH, &line)?;
            }
        }
        symmetric::barrier_all();
        Ok(part)
    }

    /// One step: each cell becomes the mean of its neighbours.
    fn step(&mut self) -> Result<(), SymmetricError> {
        // SAFETY: the others write to this PE's slices only between the barriers of this step, and nothing but the rows beside its own.
        let now = unsafe { self.now.as_slice() };
        // SAFETY: as above; this PE has no other reference to it.
        let next = unsafe { self.next.as_mut_slice() };
        for row in 1..=self.rows {
            let line = row * WIDTH;
            for column in 0..WIDTH {
                let at = line + column;
                let left = if column > 0 { now[at - 1] } else { 0.0 };
                let right = if column + 1 < WIDTH { now[at + 1] } else { 0.0 };
                next[at] = (now[at - WIDTH] + now[at + WIDTH] + left + right) / 4.0;
            }
        }
        let (upper, lower) = (next[WIDTH..2 * WIDTH].to_vec(), next[self.rows * WIDTH..][..WIDTH].to_vec());
        // All have read the rows beside theirs: they may be written.
        symmetric::barrier_all();
        let me = symmetric::my_pe();
        if me > 0 {
            let (_, rows) = rows_of(me - 1);
            self.next.put(me - 1, (rows + 1) * WIDTH, &upper)?;
        }
        if me + 1 < symmetric::n_pes() {
            self.next.put(me + 1, 0, &lower)?;
        }
        symmetric::barrier_all();
        std::mem::swap(&mut self.now, &mut self.next);
        Ok(())
    }

    /// The whole plate, fetched from all PEs.
    fn gather(&self) -> Result<Vec<f64>, SymmetricError> {
        let mut plate = vec![0.0; WIDTH * HEIGHT];
        for pe in 0..symmetric::n_pes() {
            let (first, rows) = rows_of(pe);
            self.now.get(pe, WIDTH, &mut plate[first * WIDTH..][..rows * WIDTH])?;
        }
        Ok(plate)
    }
}

/// A sum of where each bit is, which every change changes.
fn sum_of(part: &Part) -> u64 {
    let (now, begin) = (part.now.to_vec(), part.first * WIDTH);
    let own = &now[WIDTH..][..part.rows * WIDTH];
    let of = |(at, value): (usize, &f64)| value.to_bits().wrapping_mul(2 * (begin + at) as u64 + 1);
    own.iter().enumerate().map(of).fold(0, u64::wrapping_add)
}

/// The plate as a picture, from black over red and yellow to white: a BMP file.
fn picture(plate: &[f64]) -> Vec<u8> {
    let bytes = WIDTH * HEIGHT * 3;
    let mut picture = b"BM".to_vec();
    for word in [54 + bytes as u32, 0, 54, 40, WIDTH as u32, HEIGHT as u32, 1 | 24 << 16, 0, bytes as u32, 0, 0, 0, 0] {
        picture.extend(word.to_le_bytes());
    }
    // The lowest row comes first, and of each cell blue, green and red.
    for cell in plate.chunks_exact(WIDTH).rev().flatten() {
        let heat = (cell / 100.0).sqrt() * 3.0;
        picture.extend([heat - 2.0, heat - 1.0, heat].map(|part| (part.clamp(0.0, 1.0) * 255.0) as u8));
    }
    picture
}

fn main() -> Result<(), Box<dyn Error>> {
    symmetric::init()?;
    let mut part = Part::new()?;
    for _ in 0..STEPS {
        part.step()?;
    }
    let (sums, total) = (SymSlice::<u64>::new(1)?, SymSlice::<u64>::new(1)?);
    sums.write(0, &[sum_of(&part)])?;
    total.sum_to_all(&sums)?;
    if symmetric::my_pe() == 0 {
        let plate = part.gather()?;
        let mean = plate.iter().sum::<f64>() / plate.len() as f64;
        let sum = total.to_vec()[0];
        println!("{WIDTH} x {HEIGHT} cells, mean {mean:.6}, checksum {sum:016x}; PEs: {}", symmetric::n_pes());
        if let Some(path) = env::args_os().nth(1) {
            fs::write(&path, picture(&plate))?;
            println!("{} bytes in {}", WIDTH * HEIGHT * 3 + 54, path.display());
        }
    }
    symmetric::barrier_all();
    drop((total, sums, part));
    symmetric::finalize()?;
    Ok(())
}
