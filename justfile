# What a developer does often. `just ci` is what CI runs.

# Everything, quick form.
ci:
    tests/run

# Without the real Asterisks.
test:
    CALLPOST_SKIP_ASTERISK=1 tests/run

demo *options:
    tests/demo {{options}}

lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Longer fuzzing: seconds a target.
fuzz seconds="300":
    tests/fuzz {{seconds}}

# Throughput of the codec beside its limits.
bench:
    cargo bench --package parsers

# The package, linked for glibc 2.28: amd64, arm64 or armhf.
deb arch="amd64":
    packaging/deb {{arch}}

# Its life from installation to purge on every Debian there is support for, and what there is to know of it.
package-matrix:
    tests/package/matrix

package-figures:
    tests/package/figures
