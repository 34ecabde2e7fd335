//! zlib itself, in C: what `zlib_compress` is measured against. For tests and benchmarks only.

/// Size of what zlib's `compress2` makes of `data` at `level` 0 to 9.
///
/// # Panics
/// As [`compress`].
pub fn compressed_size(data: &[u8], level: i32) -> usize {
    compress(level, data).len()
}

/// What zlib's `compress2` makes of `data` at `level` 0 to 9.
///
/// # Panics
/// When zlib refuses, which it does only for a level out of range.
pub fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    // SAFETY: compressBound only computes.
    let bound = unsafe { libz_sys::compressBound(data.len() as libz_sys::uLong) };
    let mut out = vec![0u8; bound as usize];
    let mut length = bound;
    // SAFETY: `out` has the size which compressBound demands for `data`, and `length` says so.
    let answer = unsafe { libz_sys::compress2(out.as_mut_ptr(), &raw mut length, data.as_ptr(), data.len() as libz_sys::uLong, level) };
    assert_eq!(answer, libz_sys::Z_OK, "zlib refuses level {level}");
    out.truncate(length as usize);
    out
}

/// What zlib's `uncompress` reads from `data`; `None` when zlib finds it corrupt or longer than `bytes_max`.
pub fn decompress(data: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    // One byte of room at least: zlib refuses a null pointer.
    let mut out = vec![0u8; bytes_max.max(1)];
    let mut length = out.len() as libz_sys::uLong;
    // SAFETY: both lengths are those of the buffers, and zlib writes at most `length` bytes.
    let answer = unsafe { libz_sys::uncompress(out.as_mut_ptr(), &raw mut length, data.as_ptr(), data.len() as libz_sys::uLong) };
    out.truncate(length as usize);
    (answer == libz_sys::Z_OK).then_some(out)
}
