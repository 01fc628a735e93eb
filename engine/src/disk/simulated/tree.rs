//! The simulated directory tree: names as readers see them, names that surely survive, and the changes
//! in between, each of which a crash may keep or lose. \[P\]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use rand::Rng;
use rand_pcg::Pcg64;

use super::content::FileContent;
use super::{Fate, View};

/// Number of a file or directory, never reused.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

/// Files that nothing can reach any more are forgotten this often.
const SWEEP_EVERY_SYNCS: u64 = 256;

/// A file with the state that belongs to no descriptor.
#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    pub(super) content: FileContent,
    /// The descriptor that holds the lock.
    pub(super) lock: Option<u64>,
    /// Descriptors that keep it alive without a name.
    pub(super) open: u32,
    /// Whether its name was taken away.
    pub(super) unnamed: bool,
}

#[derive(Debug, Clone)]
enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

#[derive(Debug, Clone, Default)]
struct DirectoryNode {
    visible: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

impl DirectoryNode {
    fn entries(&self, view: View) -> &BTreeMap<String, NodeId> {
        match view {
            View::Visible => &self.visible,
            View::Durable => &self.durable,
        }
    }
}

/// A name change that no sync of its directory has covered yet.
#[derive(Debug, Clone)]
enum Change {
    Link { directory: NodeId, name: String, node: NodeId },
    Unlink { directory: NodeId, name: String, node: NodeId },
    Rename { from: (NodeId, String), to: (NodeId, String), node: NodeId },
}

impl Change {
    fn node(&self) -> NodeId {
        match self {
            Self::Link { node, .. } | Self::Unlink { node, .. } | Self::Rename { node, .. } => {
                *node
            }
        }
    }

    fn touches(&self, directory: NodeId) -> bool {
        match self {
            Self::Link { directory: touched, .. } | Self::Unlink { directory: touched, .. } => {
                *touched == directory
            }
            Self::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }
}

/// All nodes, found from the root.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    pending: Vec<Change>,
    directory_syncs: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node::Directory(DirectoryNode::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
            directory_syncs: 0,
        }
    }
}

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("simulated disk: {}", path.display()))
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or_else(|| error(io::ErrorKind::InvalidInput, path))?);
            }
            Component::Prefix(_) | Component::ParentDir => {
                return Err(error(io::ErrorKind::InvalidInput, path));
            }
        }
    }
    Ok(names)
}

impl Tree {
    /// Fails when nothing is at `path`.
    pub(super) fn check_exists(&self, path: &Path) -> io::Result<()> {
        self.resolve(path).map(|_| ())
    }

    /// The file at `path`.
    pub(super) fn file_id(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.resolve(path)?;
        match self.nodes.get(&id) {
            Some(Node::File(_)) => Ok(id),
            _ => Err(error(io::ErrorKind::IsADirectory, path)),
        }
    }

    pub(super) fn file(&self, id: NodeId) -> Option<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Every file that has a node, named or not.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileNode> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        })
    }

    /// Ids of all files, in order.
    pub(super) fn file_ids(&self) -> Vec<NodeId> {
        let is_file = |node: &Node| matches!(node, Node::File(_));
        self.nodes.iter().filter(|(_, node)| is_file(node)).map(|(id, _)| *id).collect()
    }

    /// Creates a file that must not exist.
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let (directory, name) = self.parent(path)?;
        if self.directory(directory, path)?.visible.contains_key(&name) {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        Ok(self.add(directory, name, Node::File(FileNode::default())))
    }

    /// Creates a directory and its missing parents.
    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let mut current = ROOT;
        for name in names(path)? {
            let existing = self.directory(current, path)?.visible.get(name).copied();
            current = match existing {
                Some(id) if matches!(self.nodes.get(&id), Some(Node::Directory(_))) => id,
                Some(_) => return Err(error(io::ErrorKind::AlreadyExists, path)),
                None => {
                    let node = Node::Directory(DirectoryNode::default());
                    self.add(current, name.to_owned(), node)
                }
            };
        }
        Ok(())
    }

    /// Names in a directory with (is directory, length in bytes), sorted.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<(String, bool, u64)>> {
        let directory = self.directory(self.resolve(path)?, path)?;
        let entries = directory.visible.iter().map(|(name, id)| match self.nodes.get(id) {
            Some(Node::File(file)) => (name.clone(), false, file.content.length()),
            _ => (name.clone(), true, 0),
        });
        Ok(entries.collect())
    }

    /// Renames; returns the file that lost its name to it.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Option<NodeId>> {
        let node = self.resolve(from)?;
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        let is_directory = matches!(self.nodes.get(&node), Some(Node::Directory(_)));
        if is_directory && names(to)?.starts_with(&names(from)?) && from != to {
            return Err(error(io::ErrorKind::InvalidInput, to));
        }
        let replaced = self.directory(to_directory, to)?.visible.get(&to_name).copied();
        if replaced == Some(node) {
            return Ok(None);
        }
        match replaced.and_then(|id| self.nodes.get(&id)) {
            Some(Node::File(_)) if is_directory => {
                return Err(error(io::ErrorKind::NotADirectory, to));
            }
            Some(Node::Directory(_)) if !is_directory => {
                return Err(error(io::ErrorKind::IsADirectory, to));
            }
            Some(Node::Directory(target)) if !target.visible.is_empty() => {
                return Err(error(io::ErrorKind::DirectoryNotEmpty, to));
            }
            _ => {}
        }
        self.directory_mut(from_directory, from)?.visible.remove(&from_name);
        self.directory_mut(to_directory, to)?.visible.insert(to_name.clone(), node);
        let (from, to) = ((from_directory, from_name), (to_directory, to_name));
        self.pending.push(Change::Rename { from, to, node });
        let replaced = replaced.filter(|id| self.file(*id).is_some());
        if let Some(file) = replaced.and_then(|id| self.file_mut(id)) {
            file.unnamed = true;
        }
        Ok(replaced)
    }

    /// Takes a file's name away; returns the file.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<NodeId> {
        let node = self.file_id(path)?;
        self.unlink(path, node)?;
        Ok(node)
    }

    /// Takes a directory and all below it out of sight; returns the files in it.
    pub(super) fn remove_directory(&mut self, path: &Path) -> io::Result<Vec<NodeId>> {
        let directory = self.resolve(path)?;
        let entries = self.directory(directory, path)?.visible.clone();
        let mut files = Vec::new();
        for (name, id) in entries {
            let below = path.join(&name);
            if matches!(self.nodes.get(&id), Some(Node::Directory(_))) {
                files.extend(self.remove_directory(&below)?);
            } else {
                self.unlink(&below, id)?;
                files.push(id);
            }
        }
        self.unlink(path, directory)?;
        Ok(files)
    }

    /// Makes every pending change of the directory's names durable.
    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let id = self.resolve(path)?;
        self.directory(id, path)?;
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if change.touches(id) { self.apply_durably(change) } else { self.pending.push(change) }
        }
        self.directory_syncs += 1;
        if self.directory_syncs.is_multiple_of(SWEEP_EVERY_SYNCS) {
            self.sweep();
        }
        Ok(())
    }

    /// Power cut: every pending name change is kept or lost; every file meets its fate.
    pub(super) fn crash(&mut self, fate: Fate, rng: &mut Pcg64) {
        for change in std::mem::take(&mut self.pending) {
            let kept = match fate {
                Fate::Kept => true,
                Fate::Lost => false,
                Fate::Any | Fate::Damaged => rng.random_bool(0.5),
            };
            if kept {
                self.apply_durably(change);
            }
        }
        for file in self.files_mut() {
            file.content.crash(fate, rng);
            file.lock = None;
            file.open = 0;
        }
        self.settle_names();
    }

    /// The tree as it would surely survive, with nothing pending.
    pub(super) fn durable(&self) -> Self {
        let mut tree = self.clone();
        tree.pending.clear();
        for file in tree.files_mut() {
            *file = FileNode { content: file.content.durable(), ..FileNode::default() };
        }
        tree.settle_names();
        tree
    }

    /// Paths of all files and directories, in order.
    pub(super) fn paths(&self, view: View) -> Vec<(PathBuf, NodeId)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = open.pop() {
            let Some(Node::Directory(directory)) = self.nodes.get(&id) else { continue };
            for (name, id) in directory.entries(view) {
                found.push((path.join(name), *id));
                open.push((path.join(name), *id));
            }
        }
        found.sort();
        found
    }

    /// Puts a durable file at `path`, replacing what is there; parents are made, durably, as needed.
    pub(super) fn put_durable_file(&mut self, path: &Path, content: FileContent) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_directory(parent)?;
        }
        let id = match self.file_id(path) {
            Ok(id) => id,
            Err(_) => self.create_file(path)?,
        };
        self.file_mut(id).ok_or_else(|| error(io::ErrorKind::NotFound, path))?.content = content;
        for change in std::mem::take(&mut self.pending) {
            self.apply_durably(change);
        }
        Ok(())
    }

    fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        let mut current = ROOT;
        for name in names(path)? {
            let found = self.directory(current, path)?.visible.get(name).copied();
            current = found.ok_or_else(|| error(io::ErrorKind::NotFound, path))?;
        }
        Ok(current)
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let names = names(path)?;
        let (name, parents) =
            names.split_last().ok_or_else(|| error(io::ErrorKind::InvalidInput, path))?;
        let directory = self.resolve(&parents.iter().collect::<PathBuf>())?;
        self.directory(directory, path)?;
        Ok((directory, (*name).to_owned()))
    }

    fn directory(&self, id: NodeId, path: &Path) -> io::Result<&DirectoryNode> {
        match self.nodes.get(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(error(io::ErrorKind::NotADirectory, path)),
        }
    }

    fn directory_mut(&mut self, id: NodeId, path: &Path) -> io::Result<&mut DirectoryNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(error(io::ErrorKind::NotADirectory, path)),
        }
    }

    fn add(&mut self, directory: NodeId, name: String, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        if let Some(Node::Directory(parent)) = self.nodes.get_mut(&directory) {
            parent.visible.insert(name.clone(), id);
        }
        self.pending.push(Change::Link { directory, name, node: id });
        id
    }

    fn unlink(&mut self, path: &Path, node: NodeId) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.directory_mut(directory, path)?.visible.remove(&name);
        if let Some(file) = self.file_mut(node) {
            file.unnamed = true;
        }
        self.pending.push(Change::Unlink { directory, name, node });
        Ok(())
    }

    fn apply_durably(&mut self, change: Change) {
        let mut set = |directory: NodeId,
                       name: String,
                       from: Option<NodeId>,
                       to: Option<NodeId>| {
            let Some(Node::Directory(directory)) = self.nodes.get_mut(&directory) else { return };
            if from.is_some() && directory.durable.get(&name).copied() != from {
                return;
            }
            match to {
                Some(node) => directory.durable.insert(name, node),
                None => directory.durable.remove(&name),
            };
        };
        match change {
            Change::Link { directory, name, node } => set(directory, name, None, Some(node)),
            Change::Unlink { directory, name, node } => set(directory, name, Some(node), None),
            Change::Rename { from, to, node } => {
                set(from.0, from.1, Some(node), None);
                set(to.0, to.1, None, Some(node));
            }
        }
    }

    /// Forgets files without descriptor, visible name, durable name or pending change.
    fn sweep(&mut self) {
        let mut reached: BTreeSet<NodeId> = [View::Visible, View::Durable]
            .into_iter()
            .flat_map(|view| self.paths(view))
            .map(|p| p.1)
            .collect();
        reached.extend(self.pending.iter().map(Change::node));
        let is_needed = |file: &FileNode| file.open > 0 || file.lock.is_some();
        self.nodes.retain(|id, node| match node {
            Node::File(file) => is_needed(file) || reached.contains(id),
            Node::Directory(_) => true,
        });
    }

    /// Durable names become the visible ones; nodes that no name reaches are gone.
    fn settle_names(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.visible.clone_from(&directory.durable);
            }
        }
        let mut reached: Vec<NodeId> =
            self.paths(View::Visible).into_iter().map(|(_, id)| id).collect();
        reached.sort_unstable();
        self.nodes.retain(|id, _| *id == ROOT || reached.binary_search(id).is_ok());
        for file in self.files_mut() {
            file.unnamed = false;
        }
    }
}
