//! Builds the crate again when a migration is added: the macro that embeds them can't see that.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
