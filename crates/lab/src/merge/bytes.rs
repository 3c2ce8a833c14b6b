//! Byte strings one after the other, each behind its length: how messages and fixtures are written.

/// Appends an item.
pub(crate) fn put(out: &mut Vec<u8>, item: &[u8]) {
    let length = u32::try_from(item.len()).expect("items are shorter than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(item);
}

/// The items, of bytes that [`put`] wrote.
pub(crate) fn items(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (item, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        bytes = rest;
        Some(item)
    })
}

/// A list of items as one byte string.
pub(crate) fn joined(list: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    list.iter().for_each(|item| put(&mut out, item));
    out
}
