//! With a shell script in place of the program: what is tested is the watch, not the model.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// `script` has the socket's path in `$5` and its folder as working place `$dir`.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("model.sh");
        let dir = folder.path().display();
        std::fs::write(&program, format!("#!/bin/sh\ndir={dir}\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(folder.path().join("b.gguf"), "").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> ModelConfig {
        ModelConfig {
            enabled: true,
            program: Some(self.path("model.sh")),
            file: None,
            cache_dir: Some(self.folder.path().to_owned()),
            workers: 3,
        }
    }

    fn start(&self) -> LocalModel {
        LocalModel::start(self.config(), self.folder.path())
    }
}

async fn wait_for(model: &LocalModel, ready: bool) {
    let mut state = model.ready();
    let change = state.wait_for(|state| *state == ready);
    tokio::time::timeout(Duration::from_secs(10), change)
        .await
        .unwrap()
        .unwrap();
}

/// Lives until its standard input ends, as the program does.
const SERVE: &str = "echo \"$@\" > $dir/args; env > $dir/env; echo ready unix; cat > /dev/null";

#[tokio::test]
async fn the_program_is_started_with_its_arguments_alone_and_stopped() {
    let stage = Stage::new(&format!("{SERVE}; echo ended > $dir/ended"));
    let model = stage.start();
    wait_for(&model, true).await;
    let args = std::fs::read_to_string(stage.path("args")).unwrap();
    let socket = stage.path("model.sock");
    let weights = stage.path("b.gguf");
    let expected = format!(
        "serve --model {} --socket {} --workers 3 --exit-with-parent\n",
        weights.display(),
        socket.display()
    );
    assert_eq!(args, expected);
    assert_eq!(model.base_url(), BaseUrl::Unix(socket));
    let environment = std::fs::read_to_string(stage.path("env")).unwrap();
    assert!(!environment.contains("CARGO"), "{environment}");

    tokio::time::timeout(Duration::from_secs(10), model.stop())
        .await
        .unwrap();
    assert!(stage.path("ended").exists(), "it was asked, not killed");
}

#[tokio::test]
async fn a_program_that_dies_is_started_again() {
    let stage = Stage::new(&format!(
        "echo x >> $dir/starts\n[ -e $dir/second ] || {{ : > $dir/second; echo ready; exit 3; }}\n{SERVE}"
    ));
    let model = stage.start();
    // The second run writes its arguments before it is ready.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !stage.path("args").exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for(&model, true).await;
    assert_eq!(
        std::fs::read_to_string(stage.path("starts")).unwrap(),
        "x\nx\n"
    );
    model.stop().await;
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed() {
    let stage = Stage::new("echo $$ > $dir/pid; echo ready; while :; do read x || sleep 1; done");
    let model = stage.start();
    wait_for(&model, true).await;
    let pid = std::fs::read_to_string(stage.path("pid")).unwrap();
    assert!(Path::new("/proc").join(pid.trim()).exists());
    tokio::time::timeout(Duration::from_secs(15), model.stop())
        .await
        .unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[tokio::test]
async fn what_is_missing_is_named_and_the_server_goes_on() {
    let stage = Stage::new(SERVE);
    let mut config = stage.config();
    config.file = Some(stage.path("absent.gguf"));
    assert!(Program::find(&config).unwrap_err().contains("absent.gguf"));
    config.file = None;
    config.cache_dir = None;
    assert!(Program::find(&config).unwrap_err().contains("HOME"));
    config.program = Some(stage.path("absent"));
    assert!(
        Program::find(&config)
            .unwrap_err()
            .contains("program is missing")
    );

    let model = LocalModel::start(config, stage.folder.path());
    tokio::time::timeout(Duration::from_secs(5), model.stop())
        .await
        .unwrap();
}

#[test]
fn a_long_data_folder_gets_a_short_socket() {
    assert_eq!(
        socket_path(Path::new("/srv/hubbub")),
        Path::new("/srv/hubbub/model.sock")
    );
    let long = socket_path(&Path::new("/srv").join("x".repeat(200)));
    assert!(
        long.as_os_str().len() <= SOCKET_PATH_BYTES,
        "{}",
        long.display()
    );
}
