//! Installs the clients below `target/conformance/`, from the package registries, in pinned versions.
//!
//! An install that is complete leaves a stamp with what was asked for; the next run reuses it while the stamp says
//! the same. What cannot be installed is an error here and `skipped` with that reason in the matrix.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::client::{Client, Column};
use super::command::run;
use super::console_tools::ConsoleTools;
use super::driver::Driver;
use super::kcat::Kcat;

/// Registries are far away.
const LIMIT: Duration = Duration::from_mins(5);

const KAFKA_VERSION: &str = "4.3.0";
const CONFLUENT_KAFKA: &[&str] = &["confluent-kafka==2.16.1"];
const KAFKA_PYTHON: &[&str] =
    &["kafka-python==3.0.12", "python-snappy==0.7.3", "lz4==4.4.5", "zstandard==0.25.0"];
const AIOKAFKA: &[&str] = &["aiokafka==0.14.0", "cramjam==2.14.0"];
const KAFKAJS: &[&str] =
    &["kafkajs@2.2.4", "kafkajs-snappy@1.1.0", "lz4js@0.2.0", "zstd-codec@0.1.5"];

/// Installs `client` below `directory`, or finds it installed.
///
/// # Errors
/// When a program that the install needs is missing, or its registry does not answer.
pub(crate) fn install(client: Client, directory: &Path) -> anyhow::Result<Box<dyn Column + Send>> {
    let sources = sources();
    Ok(match client {
        Client::ConfluentKafka => python(client, directory, CONFLUENT_KAFKA, "confluent.py")?,
        Client::KafkaPython => python(client, directory, KAFKA_PYTHON, "kafka_python.py")?,
        Client::Aiokafka => python(client, directory, AIOKAFKA, "aiokafka_client.py")?,
        Client::Kafkajs => {
            let directory = directory.join(client.name());
            once(&directory, &KAFKAJS.join(" "), || npm(&directory))?;
            Box::new(Driver::new(move || {
                let mut command = Command::new("node");
                command.arg(sources.join("kafkajs.js")).current_dir(&directory);
                command
            }))
        }
        Client::Java => {
            let jars = java(directory)?;
            let classes = java_driver(directory, &jars)?;
            Box::new(Driver::new(move || {
                let mut command = Command::new("java");
                command
                    .args(["-Xmx512m", "-cp"])
                    .arg(format!("{}:{}/*", classes.display(), jars.display()))
                    .arg("Driver");
                command
            }))
        }
        Client::JavaTools => {
            Box::new(ConsoleTools::new(java(directory)?, &directory.join(client.name()))?)
        }
        Client::Kcat => {
            let root = directory.join(client.name());
            let packages = root.join("packages");
            once(&packages, "kcat", || debian(&packages, "kcat"))?;
            Box::new(Kcat::new(&packages.join("root"), &root)?)
        }
    })
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance/drivers")
}

/// Runs `install` on an empty `directory`, unless it is installed as `wanted` already.
fn once(
    directory: &Path,
    wanted: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stamp = directory.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("installing {wanted}");
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    install()?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

fn python(
    client: Client,
    directory: &Path,
    packages: &[&str],
    driver: &str,
) -> anyhow::Result<Box<dyn Column + Send>> {
    let directory = directory.join(client.name());
    let environment = directory.join("venv");
    let interpreter = environment.join("bin/python");
    once(&directory, &packages.join(" "), || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment), b"", LIMIT)?;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        // Compiling C is a job for those who develop the client.
        pip.arg("--only-binary=:all:").args(packages);
        run(&mut pip, b"", LIMIT)?;
        Ok(())
    })?;
    let driver = sources().join(driver);
    Ok(Box::new(Driver::new(move || {
        let mut command = Command::new(&interpreter);
        command.arg("-u").arg(&driver).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    })))
}

fn npm(directory: &Path) -> anyhow::Result<()> {
    fs::write(directory.join("package.json"), "{\"private\": true}\n")
        .context("write package.json")?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).args(KAFKAJS);
    run(npm.current_dir(directory), b"", LIMIT)?;
    Ok(())
}

/// Fetches Apache Kafka with its tools and its broker through Maven; returns the directory of the jars.
///
/// # Errors
/// When Java or Maven is missing, or the registry does not answer.
pub(crate) fn java(directory: &Path) -> anyhow::Result<PathBuf> {
    let directory = directory.join("kafka");
    let jars = directory.join("jars");
    // The client, the tools and the control ask at the same time; one of them fetches.
    let lock = fs::File::create(directory.with_extension("lock")).context("create a lock file")?;
    lock.lock().context("wait for the lock")?;
    run(Command::new("java").arg("-version"), b"", LIMIT)?;
    once(&directory, KAFKA_VERSION, || {
        let artifact = |name: &str| {
            format!(
                "<dependency><groupId>org.apache.kafka</groupId><artifactId>{name}</artifactId>\
                 <version>{KAFKA_VERSION}</version></dependency>"
            )
        };
        let project = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>levada</groupId><artifactId>conformance</artifactId><version>1</version>\
             <dependencies>{}{}</dependencies></project>\n",
            artifact("kafka_2.13"),
            artifact("kafka-tools"),
        );
        fs::write(directory.join("pom.xml"), project).context("write pom.xml")?;
        let mut maven = Command::new("mvn");
        maven
            .args(["--quiet", "--batch-mode", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", jars.display()))
            .current_dir(&directory);
        run(&mut maven, b"", LIMIT)?;
        Ok(())
    })?;
    Ok(jars)
}

/// Compiles the Java driver; returns the directory of its classes.
fn java_driver(directory: &Path, jars: &Path) -> anyhow::Result<PathBuf> {
    let source = sources().join("Driver.java");
    let text = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    let classes = directory.join("java");
    let stamp = format!("{KAFKA_VERSION} {:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    once(&classes, &stamp, || {
        let mut compiler = Command::new("javac");
        compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(&classes).arg(&source);
        run(&mut compiler, b"", LIMIT)?;
        Ok(())
    })?;
    Ok(classes)
}

/// Unpacks a Debian package with the libraries that it depends on into `directory/root`; needs no rights.
fn debian(directory: &Path, package: &str) -> anyhow::Result<()> {
    let apt = |program: &str, private: bool| {
        let mut command = Command::new(program);
        if private {
            // Package lists of our own, for machines that have none and users who may not fetch them.
            for (option, place) in [("State", "state"), ("Cache", "cache")] {
                let place = directory.join(place);
                command.arg("-o").arg(format!("Dir::{option}={}", place.display()));
            }
        }
        command.current_dir(directory);
        command
    };
    let depends = |private: bool| {
        let mut command = apt("apt-cache", private);
        command.args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
        ]);
        command.args(["--no-breaks", "--no-replaces", "--no-enhances", package]);
        run(&mut command, b"", LIMIT)
    };
    let mut private = false;
    let listed = match depends(private) {
        Ok(listed) if !listed.is_empty() => listed,
        _ => {
            private = true;
            for place in ["state/lists/partial", "cache/archives/partial"] {
                fs::create_dir_all(directory.join(place)).context("create apt's directories")?;
            }
            run(apt("apt-get", private).arg("update"), b"", LIMIT)?;
            depends(private)?
        }
    };
    let packages = library_packages(&listed);
    ensure!(!packages.is_empty(), "apt knows no package {package}");
    run(apt("apt-get", private).arg("download").args(packages), b"", LIMIT)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(&path).arg(directory.join("root"));
            run(&mut unpack, b"", LIMIT)?;
        }
    }
    Ok(())
}

/// The packages of an `apt-cache depends` listing, without the C library: it must fit the loader that is here.
fn library_packages(listed: &[String]) -> Vec<&str> {
    listed
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .filter(|name| !name.starts_with("libc6") && !name.starts_with("libgcc"))
        .filter(|name| !(name.starts_with("gcc-") && name.ends_with("-base")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_listing_gives_packages_without_the_c_library() {
        let listed = [
            "kcat",
            "  Depends: libc6",
            "libc6",
            "librdkafka1",
            "libgcc-s1",
            "gcc-12-base",
            "<virtual>",
        ];
        let listed: Vec<_> = listed.map(str::to_owned).to_vec();
        assert_eq!(library_packages(&listed), ["kcat", "librdkafka1"]);
    }
}
