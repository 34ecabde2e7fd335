//! What `spark-submit`'s habits are here: one line for each flag, with the right command.

use super::settings::{counterpart, is_secret};

/// Flags of `spark-submit`, and what does the same. `{}` is the flag's value.
const FLAGS: &[(&str, &str)] = &[
    (
        "--master",
        "name the fleet: baler run FILE.sql --scheduler df://HOST:50050; without --scheduler this process does the work (as local[*] does)",
    ),
    (
        "--deploy-mode",
        "the driver is `baler run` where you start it; within Kubernetes apply a BalerJob (k8s/README.md): kubectl apply -f k8s/samples/job.yaml",
    ),
    ("--class", "a program is a SQL file: baler run FILE.sql; one in Rust with the DataFrame API is a binary of its own (plans/)"),
    ("--name", "name the job: baler run FILE.sql --job {}"),
    ("--status", "show the job: baler jobs show {} --state URL"),
    ("--kill", "stop the job on its fleet: baler jobs cancel {} --scheduler df://HOST:50050; the same `baler run` goes on later"),
    (
        "--num-executors",
        "start that many executors: baler executor --scheduler-host HOST, or kubectl -n baler scale statefulset/baler-executor --replicas {}",
    ),
    ("--executor-cores", "baler executor --vcores {}"),
    ("--total-executor-cores", "start as many executors as give these cores: baler executor --vcores N"),
    ("--executor-memory", "nothing to set: memory is bounded for each partition; limit the pod or cgroup of `baler executor`"),
    ("--driver-memory", "nothing to set: the driver only plans"),
    ("--driver-cores", "nothing to set: the driver only plans"),
    ("--driver-java-options", "nothing to set: there is no JVM"),
    ("--driver-class-path", "nothing to set: connectors for S3, Kafka and MongoDB are in the binary"),
    ("--jars", "nothing to set: connectors for S3, Kafka and MongoDB are in the binary"),
    ("--packages", "nothing to set: connectors for S3, Kafka and MongoDB are in the binary"),
    ("--repositories", "nothing to set: connectors for S3, Kafka and MongoDB are in the binary"),
    (
        "--py-files",
        "a program is a SQL file: baler run FILE.sql; functions of your own are a few lines of Rust (plans/examples/own_function.rs)",
    ),
    ("--files", "values for a statement are variables: baler run FILE.sql --set KEY=VALUE"),
    ("--properties-file", "convert the application: baler convert-conf APPLICATION.yaml"),
    ("--supervise", "start it again yourself, or apply a BalerJob, which is tried again (spec.retries)"),
    ("--queue", "nothing to set: executors serve all jobs, and a job takes the slots that are free"),
    ("--principal", "logins are variables: AWS_ACCESS_KEY_ID, MONGODB_USERNAME, KAFKA_USERNAME (README.md)"),
    ("--keytab", "logins are variables: AWS_SECRET_ACCESS_KEY, MONGODB_PASSWORD_FILE, KAFKA_PASSWORD_FILE (README.md)"),
];

/// The answer to the first of `spark-submit`'s habits in a command line which is none of ours; `None` if there is none.
pub fn answer(words: &[String]) -> Option<String> {
    let first = words.first().map(String::as_str).unwrap_or_default();
    for (at, word) in words.iter().enumerate() {
        let (flag, attached) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        let value = attached.or_else(|| words.get(at + 1).map(String::as_str)).filter(|value| !value.starts_with("--"));
        if flag == "--conf" || flag == "-c" && value.is_some_and(|value| value.starts_with("spark.")) {
            return Some(answer_conf(value.unwrap_or_default()));
        }
        if let Some((_, text)) = FLAGS.iter().find(|(known, _)| *known == flag) {
            return Some(format!("`{flag}` is spark-submit's; {}", text.replace("{}", value.unwrap_or("NAME"))));
        }
    }
    match first {
        "spark-submit" | "submit" => {
            Some("a job is submitted by `baler run FILE.sql --job NAME --state URL --scheduler df://HOST:50050`".to_string())
        }
        "spark-sql" | "shell" | "spark-shell" | "pyspark" => Some("the prompt is `baler sql --scheduler df://HOST:50050`".to_string()),
        _ => None,
    }
}

fn answer_conf(setting: &str) -> String {
    let (key, value) = setting.split_once('=').unwrap_or((setting, "N"));
    let value = if is_secret(key) { "…" } else { value };
    match counterpart(key) {
        Some(counterpart) => format!("`--conf {key}` is Spark's, {}: {}", counterpart.heading(), counterpart.text(value)),
        None => format!(
            "`--conf {key}` is Spark's, and has no counterpart; values for a statement are `--set KEY=VALUE`, options belong to its tables"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> Option<String> {
        answer(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn habits_are_answered_in_one_line_with_a_command() {
        for (line, expected) in [
            ("run x.sql --master k8s://a:1", "--scheduler df://"),
            ("--status batch-2tb", "baler jobs show batch-2tb"),
            ("run --kill=batch-2tb", "baler jobs cancel batch-2tb"),
            ("run x.sql --class org.Main", "baler run FILE.sql"),
            ("run x.sql --deploy-mode cluster", "kubectl apply"),
            ("run x.sql --conf spark.executor.instances=10", "--replicas 10"),
            ("run x.sql --conf spark.serializer=x", "not needed"),
            ("run x.sql --conf spark.nobody.knows=1", "no counterpart"),
            ("spark-submit main.py", "baler run FILE.sql"),
            ("spark-shell", "baler sql"),
        ] {
            let answer = answered(line).unwrap_or_else(|| panic!("{line} has no answer"));
            assert!(answer.contains(expected) && !answer.contains('\n'), "{line}: {answer}");
        }
        assert_eq!(answered("run x.sql --jobb a"), None);
        assert!(!answered("run x.sql --conf spark.hadoop.fs.s3a.secret.key=hunter2").unwrap().contains("hunter2"));
    }
}
