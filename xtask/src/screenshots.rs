//! `cargo xtask screenshots`: makes the pages of a real run and of a real comparison, opens them in headless Chromium,
//! light and dark, looks for complaints on its console, and leaves pictures; `--docs` puts those of the manual in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::conformance::{broker, root};

/// What to do with the pictures.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also puts the light ones into docs/images.
    #[arg(long)]
    docs: bool,
    /// The browser; Debian has it as package chromium.
    #[arg(long, default_value = "chromium")]
    chromium: PathBuf,
}

/// Of the whole picture, in pixels: three drawings of a run.
const SIZE: &str = "1000,1520";
/// Largest picture that the manual takes.
const DOCS_BYTES_MAX: u64 = 150_000;
/// Runs of each side of the comparison.
const RUNS: [&str; 3] = ["1", "2", "3"];

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let version = Command::new(&options.chromium).arg("--version").output();
    ensure!(
        version.is_ok_and(|output| output.status.success()),
        "there is no {}; on Debian: apt-get install chromium (or name another with --chromium)",
        options.chromium.display()
    );
    let binary = broker::build_with(&["--release"])?;
    let directory = root().join("target/screenshots");
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    for number in RUNS {
        for side in ["before", "after"] {
            eprintln!("run {number} of {side}");
            load(&binary, &directory.join(side).join(number))?;
        }
    }
    let status = Command::new(&binary)
        .args(["bench", "compare", "before", "after", "--report", "compare.html"])
        .current_dir(&directory)
        .stdout(Stdio::null())
        .status()
        .context("compare")?;
    ensure!(status.success(), "the comparison ended with {status}");

    let pages = [("run", "before/1/report.html"), ("compare", "compare.html")];
    for (name, page) in pages {
        for (theme, settings) in [("light", "1"), ("dark", "0")] {
            let picture = directory.join(format!("{name}-{theme}.png"));
            shoot(options, &directory.join(page), &picture, settings)?;
            eprintln!("{}", picture.display());
        }
    }
    if options.docs {
        let images = root().join("docs/images");
        fs::create_dir_all(&images).with_context(|| format!("create {}", images.display()))?;
        for (name, _) in pages {
            let from = directory.join(format!("{name}-light.png"));
            let bytes =
                fs::copy(&from, images.join(format!("bench-{name}.png"))).context("copy")?;
            ensure!(bytes <= DOCS_BYTES_MAX, "{} has {bytes} B", from.display());
        }
    }
    Ok(())
}

/// A run with its page. The generator's own lag is no matter here, hence its limit.
fn load(binary: &Path, results: &Path) -> anyhow::Result<()> {
    let status = Command::new(binary)
        .args(["bench", "run", "--embedded", "--quiet", "--no-limits", "--durability", "fsync"])
        .args(["--rate", "2000", "--partitions", "3", "--warmup", "1", "--duration", "10"])
        .args(["--lag-limit-us", "100000", "--directory"])
        .arg(results)
        .stdout(Stdio::null())
        .status()
        .context("run the bench")?;
    ensure!(status.success(), "the run ended with {status}");
    Ok(())
}

/// A picture of a page; an error when the browser complains about it. A scheme of 0 is dark, 1 light.
fn shoot(options: &Options, page: &Path, picture: &Path, scheme: &str) -> anyhow::Result<()> {
    let profile = picture.with_extension("profile");
    let output = Command::new(&options.chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("--window-size={SIZE}"))
        .arg(format!("file://{}", page.display()))
        .output()
        .context("run the browser")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    if !complaints.is_empty() {
        bail!("{}: {}", page.display(), complaints.join("; "));
    }
    ensure!(picture.is_file(), "no picture of {}: {said}", page.display());
    fs::remove_dir_all(&profile).with_context(|| format!("remove {}", profile.display()))
}
