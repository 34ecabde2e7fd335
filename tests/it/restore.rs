//! `baler restore`: the original objects come back, whatever is killed; what is damaged does not.

mod damage;
mod fault;
mod records;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use baler_tests::corpus::{self, Shape};
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Sink, files};
use baler_tests::minio::{Bucket, Minio};
use baler_tests::mongo::Mongo;

/// Name below the target → bytes.
type Names = BTreeMap<String, Vec<u8>>;

fn below(folder: &Path) -> Names {
    let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
    files(folder).iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn in_bucket(bucket: &Bucket, prefix: &str) -> Names {
    bucket.list(prefix).into_iter().map(|key| (key.strip_prefix(prefix).unwrap().to_string(), bucket.get(&key))).collect()
}

/// Asserts that exactly these objects are there, byte for byte, and nothing else, not even a hidden file.
#[track_caller]
fn expect_same(found: &Names, expected: &Names) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name} came back otherwise: {} bytes, not {}", found[name].len(), bytes.len());
    }
}

/// Text in all its forms, names of all sorts, and no text: nothing compressed.
fn plain_shapes() -> Vec<Shape> {
    [corpus::texts(), corpus::odd_names()].concat()
}

/// The compressed shapes, each form in a folder of its own: their names are equal without their suffixes.
fn compressed_shapes() -> Vec<Shape> {
    let mut shapes = corpus::compressed();
    for shape in &mut shapes {
        shape.name = format!("{}/{}", shape.name.rsplit('.').next().unwrap(), shape.name);
    }
    shapes
}

fn contents(shapes: &[Shape], name_of: impl Fn(&str) -> String) -> Names {
    shapes.iter().map(|shape| (name_of(&shape.name), shape.content.clone())).collect()
}

/// What a name is without the suffix of a compression.
fn plain_name(name: &str) -> String {
    let suffix = [".gz", ".zst", ".bz2", ".xz"].into_iter().find(|suffix| name.ends_with(suffix));
    name.strip_suffix(suffix.unwrap_or_default()).unwrap().to_string()
}

fn decompress(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match name.rsplit('.').next() {
        Some("gz") => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut content).unwrap(),
        Some("zst") => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut content).unwrap(),
        Some("bz2") => bzip2::read::MultiBzDecoder::new(bytes).read_to_end(&mut content).unwrap(),
        Some("xz") => liblzma::read::XzDecoder::new_multi_decoder(bytes).read_to_end(&mut content).unwrap(),
        _ => return bytes.to_vec(),
    };
    content
}

/// Runs the job over the shapes; its input folder is what must come back.
fn comes_back(mut job: Job<'_>, shapes: &[Shape], boundary: &'static str) {
    job.source_options.push(("blob.boundary", boundary));
    job.add_shapes(shapes);
    job.run();
    let to = job.scratch.join("back");
    let report = job.restore(to.to_str().unwrap(), &[]);
    assert_eq!((report["objects"].as_u64(), report["written"].as_u64()), (Some(shapes.len() as u64), Some(shapes.len() as u64)));
    expect_same(&below(&to), &below(&job.scratch.join("input")));
    for path in files(&to) {
        let source = job.scratch.join("input").join(path.strip_prefix(&to).unwrap());
        let millis =
            |path: &Path| fs::metadata(path).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(millis(&path), millis(&source), "the time of {}", path.display());
    }
}

fn collection_job() -> Job<'static> {
    Job::new().into_collection(Mongo::shared().collection())
}

#[test]
fn objects_of_every_shape_are_restored_from_a_dump() {
    comes_back(Job::new(), &plain_shapes(), "line");
}

#[test]
fn objects_of_every_shape_are_restored_from_a_collection() {
    comes_back(collection_job(), &plain_shapes(), "line");
}

#[test]
fn binary_objects_are_restored_from_both_sinks() {
    comes_back(Job::new(), &[corpus::binary()], "none");
    comes_back(collection_job(), &[corpus::binary()], "none");
}

/// Restores compressed objects plain, and compressed again.
fn compressed_come_back(job: &Job<'_>) {
    let shapes = compressed_shapes();
    job.add_shapes(&shapes);
    job.run();
    let (plain, packed) = (job.scratch.join("plain"), job.scratch.join("packed"));
    let report = job.restore(plain.to_str().unwrap(), &[]);
    assert_eq!(report["compressed"].as_u64(), Some(shapes.len() as u64));
    expect_same(&below(&plain), &contents(&shapes, plain_name));
    job.restore(packed.to_str().unwrap(), &["--recompress"]);
    let found = below(&packed);
    assert!(found.iter().all(|(name, bytes)| name.ends_with(".log") || bytes.len() < 1_000_000), "something is not compressed");
    let decompressed = found.iter().map(|(name, bytes)| (name.clone(), decompress(name, bytes))).collect();
    expect_same(&decompressed, &contents(&shapes, str::to_string));
}

#[test]
fn compressed_objects_are_restored_from_a_dump() {
    compressed_come_back(&Job::new());
}

#[test]
fn compressed_objects_are_restored_from_a_collection() {
    compressed_come_back(&collection_job());
}

#[test]
fn objects_which_would_have_one_name_are_refused_before_anything_is_written() {
    let job = Job::new();
    job.add_file("a.txt", b"plain\n");
    job.add_file("a.txt.gz", &corpus::gzip(b"packed\n"));
    job.run();
    let to = job.scratch.join("back");
    let to = to.to_str().unwrap();
    job.restore_call(to, &[]).run().expect_one_line(1, &["a.txt.gz", "a.txt", "--recompress"]);
    assert!(!Path::new(to).exists());
    job.restore(to, &["--recompress"]);
    assert_eq!(below(Path::new(to)).len(), 2);
}

/// A job from a bucket, and its objects by name.
fn bucket_job<'a>(server: &Minio, bucket: &Bucket, shapes: &[Shape]) -> Job<'a> {
    let objects: Vec<_> = shapes.iter().map(|shape| (format!("in/{}", shape.name), shape.stored.clone())).collect();
    bucket.put_all(&objects);
    Job { input: bucket.url("in/"), variables: server.environment(), ..Job::new() }
}

#[test]
fn objects_of_every_shape_are_restored_into_a_bucket_from_both_sinks() {
    let (server, mongo) = (Minio::plain(), Mongo::shared());
    let bucket = server.make_bucket();
    let job = bucket_job(server, &bucket, &plain_shapes());
    job.run();
    job.restore(&bucket.url("from-dump/"), &[]);
    let expected = in_bucket(&bucket, "in/");
    expect_same(&in_bucket(&bucket, "from-dump/"), &expected);
    let job = Job { name: "second".into(), ..job.into_collection(mongo.collection()) };
    job.run();
    job.restore(&bucket.url("from-collection"), &[]);
    expect_same(&in_bucket(&bucket, "from-collection/"), &expected);
    // And down to files, from a bucket's objects.
    let to = job.scratch.join("back");
    job.restore(to.to_str().unwrap(), &[]);
    expect_same(&below(&to), &expected);
}

#[test]
fn an_object_of_many_parts_is_restored_into_a_bucket() {
    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let mut job = Job { variables: server.environment(), ..Job::new() };
    job.source_options = vec![("blob.boundary", "none")];
    let bytes = corpus::Random::new(70).bytes(35 << 20);
    job.add_file("noise.bin", &bytes);
    job.run();
    job.restore(&bucket.url("back"), &[]);
    expect_same(&in_bucket(&bucket, "back/"), &Names::from([("noise.bin".to_string(), bytes)]));
}

#[test]
fn names_keep_their_relation_to_a_glob_and_to_a_single_object() {
    let mut job = Job::new();
    job.add_file("2026/a/1.log", b"one\n");
    job.add_file("2026/b/2.log", b"two\n");
    let single = job.add_file("2026/b/3.txt", b"three\n");
    let folder = job.input.clone();
    for (name, input, expected) in
        [("glob", format!("{folder}2026/*/*.log"), vec!["a/1.log", "b/2.log"]), ("single", single, vec!["3.txt"])]
    {
        (job.name, job.input) = (name.to_string(), input);
        job.sink = Sink::Bson(job.scratch.join(&format!("dump-{name}")));
        job.run();
        let to = job.scratch.join(&format!("back-{name}"));
        job.restore(to.to_str().unwrap(), &[]);
        assert_eq!(below(&to).into_keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_second_restore_writes_nothing_and_what_is_lost_is_written_again() {
    let job = Job::new();
    job.add_shapes(&plain_shapes());
    job.run();
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    job.restore(target, &[]);
    let inodes = || files(&to).iter().map(|path| fs::metadata(path).unwrap().ino()).collect::<Vec<_>>();
    let before = inodes();
    let report = job.restore(target, &[]);
    assert_eq!((report["written"].as_u64(), report["documents"].as_u64()), (Some(0), Some(0)));
    assert_eq!(inodes(), before, "a file was written again");
    fs::remove_file(to.join("crlf.txt")).unwrap();
    assert_eq!(job.restore(target, &[])["written"].as_u64(), Some(1));
    expect_same(&below(&to), &below(&job.scratch.join("input")));

    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let job = Job { variables: server.environment(), ..job };
    job.restore(&bucket.url("back"), &[]);
    assert_eq!(job.restore(&bucket.url("back"), &[])["written"].as_u64(), Some(0));
}

#[test]
fn what_else_is_at_an_objects_place_is_replaced_only_where_that_is_asked_for() {
    let (server, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let job = Job { variables: server.environment(), ..Job::new() };
    job.add_file("a.txt", b"the original\n");
    job.run();
    let to = job.scratch.join("back");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("a.txt"), b"something of mine").unwrap();
    bucket.put("back/a.txt", b"the original\n");
    for target in [to.to_str().unwrap(), &bucket.url("back")] {
        job.restore_call(target, &[]).run().expect_one_line(1, &["a.txt", "something else", "--overwrite"]);
        assert_eq!(fs::read(to.join("a.txt")).unwrap(), b"something of mine");
        assert_eq!(job.restore(target, &["--overwrite"])["written"].as_u64(), Some(1));
        fs::write(to.join("a.txt"), b"something of mine").unwrap();
    }
    assert_eq!(bucket.get("back/a.txt"), b"the original\n");
}

#[test]
fn a_fleet_restores_what_one_process_restores() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let fleet = Fleet::start(2, &server.environment());
    let mut job = bucket_job(server, &bucket, &plain_shapes()).on(&fleet);
    job.sink = Sink::S3(&bucket, "dump".to_string());
    job.state = bucket.url("state");
    job.run();
    let report = job.restore(&bucket.url("back"), &[]);
    assert_eq!(report["written"].as_u64(), Some(plain_shapes().len() as u64));
    expect_same(&in_bucket(&bucket, "back/"), &in_bucket(&bucket, "in/"));
    let waves: Vec<_> = fleet.jobs().into_iter().filter(|(name, _)| name.starts_with("load restore wave")).collect();
    assert!(!waves.is_empty() && waves.iter().all(|(_, status)| status == "Completed"), "{waves:?}");
    assert_eq!(job.restore(&bucket.url("back"), &[])["written"].as_u64(), Some(0));
    job.scheduler = None;
    job.restore(&bucket.url("alone"), &[]);
    expect_same(&in_bucket(&bucket, "alone/"), &in_bucket(&bucket, "back/"));
}
