mod allocator;
fn main() {
    let v: Vec<String> = (0..100000).map(|i| format!("x{i}")).collect();
    println!("{} {}", allocator::NAME, v.len());
}
