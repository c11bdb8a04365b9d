//! A small file system in memory for a data directory, in a mount namespace that ends with the test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A mounted file system, as long as this lives. Whoever wants to see it is started [`inside`](Self::inside).
pub(crate) struct SmallDisk {
    /// Holds the namespace. It ends when its stdin closes, also if the test is killed.
    holder: Child,
    place: String,
    /// Options of `unshare` and `nsenter` for one who is not root.
    as_user: bool,
}

impl SmallDisk {
    /// Mounts `megabytes` at this folder, or says why that is not possible here.
    pub(crate) fn mount(place: &Path, megabytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(place).unwrap();
        Self::try_mount(place, megabytes, false).or_else(|root| {
            Self::try_mount(place, megabytes, true).map_err(|user| format!("as root: {root}; else: {user}"))
        })
    }

    fn try_mount(place: &Path, megabytes: u32, as_user: bool) -> Result<Self, String> {
        let place = place.to_str().unwrap().to_owned();
        let script = "mount -t tmpfs -o size=$1m,mode=0700 small \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(if as_user { &["--user", "--map-root-user", "--mount"][..] } else { &["--mount"] })
            .args(["sh", "-c", script, &place, &megabytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no `unshare`: {error}"))?;
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let mut disk = Self { holder, place, as_user };
        if said != "mounted\n" {
            disk.holder.stdin.take();
            let mut why = String::new();
            BufReader::new(disk.holder.stderr.as_mut().unwrap()).read_line(&mut why).unwrap();
            return Err(why.trim().to_owned());
        }
        // Some machines let one mount but not come in from outside.
        let seen = disk.run("df -P \"$0\" | grep -q ^small");
        if seen { Ok(disk) } else { Err("the namespace cannot be entered".to_owned()) }
    }

    /// The beginning of a command line that runs what follows inside, in this folder.
    pub(crate) fn inside(&self, folder: &Path) -> Vec<String> {
        let mut line = self.enter();
        // The name of the folder leads to the mounted file system only once it is looked up in there.
        line.extend(["sh", "-c", "cd \"$0\" && exec \"$@\"", folder.to_str().unwrap()].map(str::to_owned));
        line
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, megabytes: u32) {
        // With the device named, nothing is added from the options that the kernel shows: it refuses some of them.
        assert!(self.run(&format!("mount -t tmpfs -o remount,size={megabytes}m small \"$0\"")));
    }

    /// Takes all the room that there is, as another program would.
    pub(crate) fn clog(&self) {
        // `dd` ends with an error, as it must.
        assert!(self.run("dd if=/dev/zero of=\"$0\"/clog bs=4k 2>&1 | grep -q 'No space left'"));
    }

    /// Gives it back.
    pub(crate) fn unclog(&self) {
        assert!(self.run("rm \"$0\"/clog"));
    }

    fn enter(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let mut line: Vec<String> = ["nsenter", "--target", &target, "--mount"].map(str::to_owned).into();
        if self.as_user {
            line.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        line
    }

    fn run(&self, script: &str) -> bool {
        let line = self.enter();
        let done = Command::new(&line[0]).args(&line[1..]).args(["sh", "-c", script, &self.place]).output();
        done.is_ok_and(|done| done.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.holder.stdin.take() {
            stdin.flush().ok();
        }
        self.holder.wait().ok();
    }
}
