//! Spark with the jobs of `benches/spark`: fetched into the tests' cache, tuned, and called as its users call it.

use std::path::{Path, PathBuf};
use std::process::Command;

use baler_tests::{cache, packages};

use crate::Result;

/// The newest version which Maven has the Kafka source for.
const VERSION: &str = "4.2.0";
const PYTHON_PACKAGES: [&str; 4] = ["pyspark==4.2.0", "pyarrow==26.0.1", "pandas==2.3.3", "pymongo==4.20.1"];
const JARS: [&str; 2] = ["org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0", "org.mongodb:mongodb-driver-sync:5.6.1"];

/// An installation which is ready to run.
#[derive(Debug)]
pub struct Spark {
    python: PathBuf,
    home: PathBuf,
    /// What Spark lacks, as a class path.
    more: String,
    job: PathBuf,
    cores: usize,
}

impl Spark {
    /// Fetches Spark where it is not there yet, and compiles the job for the JVM into `folder`.
    ///
    /// # Errors
    /// When the package has another form than is expected.
    ///
    /// # Panics
    /// When Python, Maven or a JDK is missing, or fails; the text says what to install.
    pub fn prepare(cores: usize, folder: &Path) -> Result<Self> {
        let environment = packages::python(&PYTHON_PACKAGES);
        let mut libraries = std::fs::read_dir(environment.join("lib"))?.flatten().map(|entry| entry.path().join("site-packages/pyspark"));
        let home = libraries.find(|place| place.is_dir()).ok_or("the package pyspark has no folder")?;
        let jars = packages::maven(&format!("spark-{VERSION}-jars"), &JARS.map(str::to_string));
        let more = class_path(&jars, &home.join("jars"))?;
        let spark = Self { python: environment.join("bin/python"), home, more, job: folder.join("compress.jar"), cores };
        let classes = folder.join("classes");
        let class_path = format!("{}:{}", spark.home.join("jars/*").display(), spark.more);
        let mut compiler = Command::new("javac");
        compiler.args(["-nowarn", "-cp", &class_path, "-d"]).arg(&classes).arg(source("Compress.java"));
        cache::step(&mut compiler, "a JDK 17 (`javac`)");
        cache::step(Command::new("jar").args(["--create", "--file"]).arg(&spark.job).arg("-C").arg(&classes).arg("."), "a JDK 17 (`jar`)");
        Ok(spark)
    }

    /// Which Spark this is.
    pub fn description(&self) -> String {
        format!("Spark {VERSION}, local[{}]", self.cores)
    }

    /// The batch job in Python.
    pub fn compress_in_python(&self, input: &str, output: &str) -> Command {
        let mut job = self.submit();
        job.arg(source("compress.py")).args([input, output]);
        job
    }

    /// The batch job in the JVM.
    pub fn compress_in_jvm(&self, input: &str, output: &str) -> Command {
        let mut job = self.submit();
        job.args(["--class", "Compress"]).arg(&self.job).args([input, output]);
        job
    }

    /// The streaming job, to the end of what the topic holds.
    pub fn stream(&self, brokers: &str, topic: &str, output: &str, checkpoint: &Path) -> Command {
        let mut job = self.submit();
        job.arg(source("stream.py")).args([brokers, topic, output]).arg(checkpoint);
        job
    }

    /// `spark-submit` with what Spark's guides say for one machine: no UI, as many partitions of a shuffle as cores.
    fn submit(&self) -> Command {
        let mut command = Command::new(self.home.join("bin/spark-submit"));
        command.env("SPARK_HOME", &self.home).env("PYSPARK_PYTHON", &self.python).env("PYTHONPATH", source(""));
        command.env("SPARK_LOCAL_IP", "127.0.0.1").args(["--master", &format!("local[{}]", self.cores)]);
        for setting in [
            "spark.ui.enabled=false",
            "spark.log.level=WARN",
            &format!("spark.sql.shuffle.partitions={}", self.cores),
            &format!("spark.driver.extraClassPath={}", self.more),
        ] {
            command.args(["--conf", setting]);
        }
        command
    }
}

/// The jars of a folder which another one does not have, in whatever version.
fn class_path(folder: &Path, other: &Path) -> Result<String> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> { Ok(std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect()) };
    let stem = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('-').take_while(|part| !part.starts_with(char::is_numeric)).collect::<Vec<_>>().join("-")
    };
    let there: Vec<_> = list(other)?.iter().map(stem).collect();
    let lacking = list(folder)?.into_iter().filter(|path| !there.contains(&stem(path)));
    Ok(lacking.map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spark").join(name)
}
