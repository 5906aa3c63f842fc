# Developers' verbs. Users need scripts/quickstart and scripts/test alone.

# List the verbs
default:
    @just --list

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# The tests that compile no kernel: seconds
quick:
    cargo test --lib
    cargo test --test tests -- recipe:: fetch:: build:: interrupt:: push:: pull:: append:: credentials::

# Everything CI runs
test:
    scripts/test

# Check every shipped flavour's configuration against a source
configs version="5.10.262":
    for flavour in firecracker cloud-hypervisor tiny; do cargo run --quiet -- config {{version}} --flavour $flavour --arch all; done

# Ratios against the peers
bench what="kernel" *args:
    scripts/bench {{what}} {{args}}
