//! Streams that are cut, bent, prolonged or far larger than they look; and any bytes there and back, read by three decoders.

use proptest::prelude::*;

use super::super::codec::{Method, decompress_value_of};
use super::super::zlib::{compress_all, compress_value};
use crate::error::ErrorKind;
use crate::session::local_session;

/// Methods with a stream format, and what each makes of `raw`, through SQL as users do.
async fn streams(raw: &str) -> Vec<(Method, Vec<u8>)> {
    let mut streams = Vec::new();
    for name in ["zlib(9)", "gzip(6)", "zstd(3)", "lz4"] {
        let session = local_session().unwrap();
        let found = session.sql(&format!("SELECT compress('{raw}', '{name}')")).await.unwrap().collect().await.unwrap();
        let column = datafusion::arrow::array::cast::as_generic_binary_array::<i32>(found[0].column(0));
        streams.push((name.parse().unwrap(), column.value(0).to_vec()));
    }
    streams
}

fn text() -> String {
    (0..60).map(|number| format!("line {} of text, ", number * 7919 % 1000)).collect()
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_refused_as_truncated_or_corrupt() {
    for (method, packed) in streams(&text()).await {
        for length in 0..packed.len() {
            let error = decompress_value_of(method, &packed[..length], 1 << 20).expect_err(&format!("{method:?} cut to {length}"));
            assert_eq!(error.kind(), ErrorKind::Decode, "{method:?} cut to {length}: {error}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_never_gives_other_bytes() {
    let raw = text();
    for (method, packed) in streams(&raw).await {
        for bit in 0..packed.len() * 8 {
            let mut bent = packed.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            // Some header bits mean nothing, such as gzip's file time.
            if let Ok(found) = decompress_value_of(method, &bent, 1 << 20) {
                assert_eq!(found, raw.as_bytes(), "{method:?} bit {bit}");
            }
        }
    }
}

#[tokio::test]
async fn bytes_after_the_end_are_refused() {
    for (method, packed) in streams(&text()).await {
        for extra in [&b"\0"[..], b"\0\0\0\0\0\0\0\0", b"more of something"] {
            let error = decompress_value_of(method, &[&packed, extra].concat(), 1 << 20).expect_err(&format!("{method:?} and {extra:?}"));
            assert_eq!(error.kind(), ErrorKind::Decode);
        }
    }
}

#[tokio::test]
async fn the_limit_is_exact_and_no_corruption() {
    let raw = text();
    let mut all = streams(&raw).await;
    all.push((Method::None, raw.clone().into_bytes()));
    for (method, packed) in all {
        let length = raw.len() as u64;
        for limit in [length, length + 1, u64::MAX] {
            assert_eq!(decompress_value_of(method, &packed, limit).unwrap(), raw.as_bytes(), "{method:?} {limit}");
        }
        for limit in [0, 1, length - 1] {
            let error = decompress_value_of(method, &packed, limit).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Permanent, "{method:?} {limit}: {error}");
            assert!(error.to_string().contains("raise max_bytes"), "{error}");
        }
    }
    let empty = compress_value(b"", 9).unwrap();
    assert_eq!(decompress_value_of(Method::Zlib(9), &empty, 0).unwrap(), b"");
}

#[test]
fn errors_say_where_and_why() {
    let raw: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let packed = compress_value(&raw, 7).unwrap();
    let half = packed.len() / 2;
    let inflate = |packed: &[u8]| decompress_value_of(Method::Zlib(9), packed, 1 << 20);
    assert_eq!(inflate(&packed).unwrap(), raw);
    let with = |position: usize, byte: u8| {
        let mut bent = packed.clone();
        bent[position] = byte;
        inflate(&bent).unwrap_err().to_string()
    };
    let cut = inflate(&packed[..half]).unwrap_err().to_string();
    assert!(cut.contains(&format!("truncated: it ends at byte {half}")), "{cut}");
    assert!(with(0, 0xff).contains("near byte 2 of"), "{}", with(0, 0xff));
    assert!(with(2, 0x07).contains("invalid block type"), "{}", with(2, 0x07));
    let last = packed.len() - 1;
    assert!(with(last, !packed[last]).contains("incorrect data check"), "{}", with(last, !packed[last]));
    let preset = inflate(&[0x78, 0xbb, 0, 0, 0, 1]).unwrap_err().to_string();
    assert!(preset.contains("dictionary"), "{preset}");
    let trailing = inflate(&[&packed[..], b"x"].concat()).unwrap_err().to_string();
    assert!(trailing.contains(&format!("1 byte follows the end of the compressed stream at byte {}", packed.len())), "{trailing}");
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let packed = compress_value(&vec![0; 64 << 20], 6).unwrap();
    assert!(packed.len() < 100_000);
    let error = decompress_value_of(Method::Zlib(9), &packed, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("more than the limit of 1048576 bytes"), "{error}");
}

/// Bytes as values are: runs, repeats from afar, and noise.
fn any_data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (any::<u8>(), 1usize..3000).prop_map(|(byte, length)| vec![byte; length]),
        prop::collection::vec(any::<u8>(), 0..400),
        prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b' ')], 0..2000),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| [pieces.concat(), pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_at_any_level_and_effort_go_round_by_three_decoders(
        data in any_data(), level in 0u8..=9, effort in prop::option::of(1u8..=12),
    ) {
        let values = [Some(data.as_slice()), None, Some(&data[..data.len() / 2])];
        let packed = compress_all(&values, level, effort).unwrap();
        prop_assert_eq!(&packed, &compress_all(&values, level, effort).unwrap());
        for (value, packed) in values.iter().zip(&packed) {
            let (Some(value), Some(packed)) = (value, packed) else {
                prop_assert_eq!(value.is_none(), packed.is_none());
                continue;
            };
            prop_assert_eq!(&decompress_value_of(Method::Zlib(9), packed, 1 << 20).unwrap(), value);
            let by_zlib = zlib_reference::decompress(packed, value.len()).unwrap();
            prop_assert_eq!(&by_zlib, value);
            let mut out = vec![0; value.len()];
            let length = libdeflater::Decompressor::new().zlib_decompress(packed, &mut out).unwrap();
            prop_assert_eq!((length, out.as_slice()), (value.len(), *value));
        }
    }

    #[test]
    fn what_zlib_itself_wrote_is_read(data in any_data(), level in 0i32..=9) {
        let packed = zlib_reference::compress(level, &data);
        prop_assert_eq!(decompress_value_of(Method::Zlib(9), &packed, data.len() as u64).unwrap(), data);
    }

    #[test]
    fn no_decoder_panics_on_foreign_bytes(data in prop::collection::vec(any::<u8>(), 0..300), head in 0usize..5) {
        // Real headers lead further in.
        let heads: [&[u8]; 5] = [&[], &[0x78, 0x9c], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[4, 0x22, 0x4d, 0x18]];
        let data = [heads[head], &data].concat();
        for method in [Method::Zlib(9), Method::Gzip(6), Method::Zstd(3), Method::Lz4, Method::None] {
            if let Ok(raw) = decompress_value_of(method, &data, 10_000) {
                prop_assert!(raw.len() <= 10_000);
            }
        }
    }
}
