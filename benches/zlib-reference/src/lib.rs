//! zlib itself, in C: what `zlib_compress` is measured against. For tests and benchmarks only.

/// Size of what zlib's `compress2` makes of `data` at `level` 0 to 9.
///
/// # Panics
/// When zlib refuses, which it does only for a level out of range.
pub fn compressed_size(data: &[u8], level: i32) -> usize {
    let mut length = 0;
    // SAFETY: `out` has the size which compressBound demands for `data`, and `length` says so.
    let answer = unsafe {
        length += libz_sys::compressBound(data.len() as libz_sys::uLong);
        let mut out = vec![0u8; length as usize];
        libz_sys::compress2(out.as_mut_ptr(), &raw mut length, data.as_ptr(), data.len() as libz_sys::uLong, level)
    };
    assert_eq!(answer, libz_sys::Z_OK, "zlib refuses level {level}");
    length as usize
}
