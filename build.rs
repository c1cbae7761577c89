//! Rebuilds the server when the widget it embeds was built anew.
fn main() {
    println!("cargo::rerun-if-changed=widget/dist");
}
