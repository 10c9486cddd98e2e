use super::super::program::row_at;
use super::{Tables, find, maps, module_of, tables_of};

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// The unwind tables of the test program.
fn tables() -> Tables {
    let module = module_of(tables as fn() -> Tables as usize).expect("this is in a module");
    tables_of(module).expect("it has tables")
}

#[test]
fn functions_are_found() {
    for address in [tables as fn() -> Tables as usize, libc::qsort as *const () as usize] {
        assert!(find(address).is_some());
        assert!(find(address + 1).is_some());
    }
    assert!([0, 8, usize::MAX, 1 << 47].into_iter().all(|address| find(address).is_none()));
}

#[test]
fn the_kernel_knows_the_modules_too() {
    for address in [tables as fn() -> Tables as usize, libc::qsort as *const () as usize] {
        let [loaders, kernels] = [module_of(address), maps::module_of(address)].map(|module| {
            let tables = module.and_then(tables_of).expect("it has tables");
            (tables.base, tables.bytes.len(), tables.header)
        });
        assert_eq!(loaders, kernels);
    }
    assert!(maps::module_of(8).is_none());
    let local = 5;
    assert!(maps::module_of(&raw const local as usize).is_none());
}

/// Tables of which some bytes are others: nothing is promised but an end.
#[test]
fn tables_that_say_anything() {
    let tables = tables();
    let copy = Box::leak(tables.bytes.to_vec().into_boxed_slice());
    let at = copy.as_mut_ptr();
    let changed = Tables { bytes: copy, ..tables };
    let instructions: Vec<_> = (0..64).map(instruction).collect();
    let mut state = 7;
    for round in 0..20_000 {
        let instruction = instructions[round % 64];
        let entry = tables.search(instruction).expect("code has an entry");
        let near = [tables.header, entry, entry][round % 3];
        let place = (near + random(&mut state) % 40) % changed.bytes.len();
        let byte = at.wrapping_add(place);
        // SAFETY: in the copy; nobody reads it meanwhile.
        let old = unsafe { byte.replace(random(&mut state) as u8) };
        if let Some(entry) = changed.entry(instruction) {
            let _ = row_at(&entry, instruction);
        }
        // SAFETY: as above.
        unsafe { byte.write(old) };
    }
    assert!(changed.entry(instructions[0]).is_some());
}

/// Some instruction of the test program.
fn instruction(number: usize) -> usize {
    tables_that_say_anything as fn() as usize + 128 * number
}
