use stratalloc::Stratalloc;
#[global_allocator]
static A: Stratalloc = Stratalloc::new();
fn main() {
    let mut v: Vec<Vec<u8>> = Vec::new();
    let mut x = 88172645463325252u64;
    let mut rnd = || { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x };
    for i in 0..3_000_000u64 {
        if v.len() > 20000 || (v.len() > 0 && rnd() % 3 == 0) {
            let k = (rnd() as usize) % v.len();
            let b = v.swap_remove(k);
            if !b.is_empty() { assert_eq!(b[0], b[b.len()-1]); }
        } else {
            let n = match rnd() % 100 { 0..90 => rnd() % 512, 90..99 => rnd() % 5000, _ => rnd() % 300_000 } as usize + 1;
            v.push(vec![i as u8; n]);
        }
    }
    let hs: Vec<_> = (0..4).map(|t| std::thread::spawn(move || {
        let mut m = std::collections::HashMap::new();
        for i in 0..200_000u64 { m.insert(i.wrapping_mul(t + 7), format!("value {i}")); if i % 3 == 0 { m.remove(&(i / 2)); } }
        m.len()
    })).collect();
    for h in hs { println!("{}", h.join().unwrap()); }
    drop(v);
    println!("active {}\n{}", Stratalloc::is_active(), Stratalloc::stats());
    Stratalloc::collect();
    println!("{}", Stratalloc::stats());
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("Vm")).collect::<Vec<_>>().join("\n"));
}
