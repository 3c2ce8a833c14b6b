//! A rule that no expression can say: the last digit of an article number (EAN-13) is right.
//!
//! Needs no allocator and no parser: the rule reads one field, `barcode`, so its input is
//! `{"record":{"barcode":"4006381333931"},"previous":…,"refs":{}}`. Atomics, because whoever calls writes
//! into them: one instance has one thread.
#![no_std]

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Bytes of an input; what is longer gets no room, and is held as not to be judged.
const ROOM: usize = 1024;
#[allow(clippy::declare_interior_mutable_const)]
const ZERO: AtomicU8 = AtomicU8::new(0);
static INPUT: [AtomicU8; ROOM] = [ZERO; ROOM];

/// Where an input of that length is to be put.
#[no_mangle]
pub extern "C" fn input(length: usize) -> usize {
    if length <= ROOM {
        INPUT.as_ptr() as usize
    } else {
        usize::MAX
    }
}

/// 1 if the number is right, or there is none; 0 if not.
#[no_mangle]
pub extern "C" fn judge(length: usize) -> i32 {
    let mut input = [0; ROOM];
    for (to, from) in input.iter_mut().zip(&INPUT) {
        *to = from.load(Relaxed);
    }
    let input = input.get(..length).unwrap_or_default();
    i32::from(barcode(input).map_or(true, is_sound))
}

/// The text of `barcode`, if the record has one.
fn barcode(input: &[u8]) -> Option<&[u8]> {
    let text = input.strip_prefix(b"{\"record\":{\"barcode\":\"")?;
    text.split(|byte| *byte == b'"').next()
}

/// Thirteen digits, of which every second one counts three times, and which add up to a multiple of ten:
/// GS1 General Specifications, section 7.9.
fn is_sound(number: &[u8]) -> bool {
    let digits = || number.iter().map(|byte| u32::from(byte.wrapping_sub(b'0')));
    let weighted = digits().zip([1, 3].into_iter().cycle()).map(|(digit, weight)| digit * weight);
    number.len() == 13 && digits().all(|digit| digit < 10) && weighted.sum::<u32>() % 10 == 0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
