//! A sample of an input: what lies at places at even distances over its bytes.

use std::collections::HashMap;

use datafusion::arrow::array::cast::AsArray;
use datafusion::execution::context::SessionContext;
use futures::StreamExt;
use serde::Serialize;

use crate::connector::blob::list::peek_compression;
use crate::connector::blob::{BlobSpec, Compression};
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::error::{Error, Result};
use crate::function::zlib::{choose_effort, compress_value};
use crate::job::manifest::ManifestObject;
use crate::runtime;
use crate::store::locate;

/// Raw bytes which are read at one place: the largest chunk whose effect is measured.
pub const PLACE_BYTES: u64 = 4 << 20;
/// Places at most, where objects are small: each is a request to the store.
pub(crate) const PLACES_MAX: u64 = 512;
/// Objects of which zlib's stream is larger than this part are named.
const HARDLY: f64 = 0.9;
/// How many of them are named.
const NAMED_MAX: usize = 10;

/// What was read, and what is known of the rest.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Objects of the input.
    pub objects: u64,
    /// Their bytes, as stored.
    pub stored_bytes: u64,
    /// Their bytes after decompression; of compressed objects a guess from how the sample compresses.
    pub raw_bytes: u64,
    /// Whether some objects are compressed, so that `raw_bytes` is a guess.
    pub is_guess: bool,
    /// Objects of the sample which zlib makes smaller by less than a tenth; the first few.
    pub hardly_compress: Vec<HardlyCompresses>,
    /// Raw bytes a second at which one stream read the sample, decompression included.
    pub read_bytes_per_second: f64,
    /// The bytes at each place.
    #[serde(skip)]
    pub places: Vec<Vec<u8>>,
}

/// An object which is better stored as it is.
#[derive(Debug, Clone, Serialize)]
pub struct HardlyCompresses {
    /// Its URI.
    pub object: String,
    /// Raw bytes through zlib's.
    pub ratio: f64,
}

/// Reads about `bytes` raw bytes of the input at `url`, which has the options of a BLOB table.
///
/// # Errors
/// Config, when there is nothing to read; otherwise those of reading.
pub async fn sample(context: &SessionContext, url: &str, options: &HashMap<String, String>, bytes: u64) -> Result<Sample> {
    let source = SourceSpec::Blob(BlobSpec::try_new(url, options)?);
    let objects = source.list_input(&context.runtime_env()).await?;
    let stored_bytes: u64 = objects.iter().map(|object| object.size).sum();
    if stored_bytes == 0 {
        return Err(Error::config(format!("there is nothing to sample at {url}: all of its objects are empty")));
    }
    let mut sample = Sample { objects: objects.len() as u64, stored_bytes, ..Sample::default() };
    let (mut growth, mut seconds) = (Vec::new(), 0.0);
    for place in choose_places(&objects, stored_bytes, bytes) {
        let Some(read) = read_place(context, &source, place).await? else { continue };
        seconds += read.seconds;
        let packed = compress_value(&read.bytes, choose_effort(&[&read.bytes], 6))?.len();
        let ratio = read.bytes.len() as f64 / packed.max(1) as f64;
        if ratio * HARDLY < 1.0 && sample.hardly_compress.len() < NAMED_MAX {
            sample.hardly_compress.push(HardlyCompresses { object: read.object, ratio });
        }
        // By any of the usual methods an object is about as small as zlib would make it.
        growth.push(if read.is_plain { 1.0 } else { ratio });
        sample.is_guess |= !read.is_plain;
        sample.places.push(read.bytes);
    }
    if sample.places.is_empty() {
        return Err(Error::config(format!("no record was found in the sample of {url}")));
    }
    sample.hardly_compress.dedup_by(|a, b| a.object == b.object);
    sample.raw_bytes = (stored_bytes as f64 * growth.iter().sum::<f64>() / growth.len() as f64) as u64;
    let read: usize = sample.places.iter().map(Vec::len).sum();
    sample.read_bytes_per_second = read as f64 / seconds.max(f64::EPSILON);
    Ok(sample)
}

/// Where to read, and how much.
struct Place {
    split: Split,
    bytes: u64,
}

/// Places at even distances over all bytes of the objects, by split; of a split which several fall into, one for each.
fn choose_places(objects: &[ManifestObject], stored_bytes: u64, bytes: u64) -> Vec<Place> {
    let mean_object = (stored_bytes / objects.len().max(1) as u64).max(1);
    let count = (bytes / PLACE_BYTES.min(mean_object)).clamp(1, PLACES_MAX);
    let nth = |place: u64| (u128::from(stored_bytes) * u128::from(2 * place + 1) / u128::from(2 * count)) as u64;
    let (mut places, mut before, mut next) = (Vec::new(), 0, 0);
    for split in objects.iter().flat_map(ManifestObject::splits) {
        while next < count && nth(next) < before + split.length() {
            let start = split.start + nth(next) - before;
            // A place near the end of an object would hold little of it.
            let start = start.min(split.size.saturating_sub(PLACE_BYTES)).max(split.start);
            next += 1;
            // Several may fall into one small object, which is read once.
            let is_new = places.last().is_none_or(|last: &Place| (last.split.start, &last.split.object) != (start, &split.object));
            if is_new {
                places.push(Place { split: Split { start, ..split.clone() }, bytes: PLACE_BYTES.min(bytes) });
            }
        }
        before += split.length();
    }
    places
}

/// What was read at a place.
struct ReadPlace {
    object: String,
    bytes: Vec<u8>,
    is_plain: bool,
    seconds: f64,
}

/// Reads a place through the table, so that what is measured are lines and decompressed bytes as a job finds them. A compressed object
/// cannot be read from its middle and is read from its beginning.
async fn read_place(context: &SessionContext, source: &SourceSpec, place: Place) -> Result<Option<ReadPlace>> {
    let Place { mut split, bytes } = place;
    if split.compression == Compression::Auto {
        let object = locate(&context.runtime_env(), &split.object)?;
        split.compression = runtime::spawn_io(async move { peek_compression(&object).await })?.join().await??;
    }
    let is_plain = split.compression == Compression::None;
    if is_plain {
        split.end = split.end.min(split.start + bytes);
    } else {
        split.start = 0;
    }
    let object = split.object.to_string();
    let started = std::time::Instant::now();
    let mut rows = context.read_table(source.pinned_table(&[vec![split]]))?.select_columns(&["content"])?.execute_stream().await?;
    let mut read = Vec::new();
    while (read.len() as u64) < bytes
        && let Some(batch) = rows.next().await
    {
        let batch = batch?;
        let content = batch.column(0).as_binary_opt::<i32>().ok_or_else(|| Error::internal("the content of a chunk is binary"))?;
        content.iter().flatten().for_each(|chunk| read.extend_from_slice(chunk));
    }
    read.truncate(bytes as usize);
    let seconds = started.elapsed().as_secs_f64();
    Ok((!read.is_empty()).then_some(ReadPlace { object, bytes: read, is_plain, seconds }))
}
