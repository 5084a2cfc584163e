# shellcheck shell=bash disable=SC2034 # the lists are used by the scripts that source this
# What a machine needs to build and test Witan, and how it is installed and built. Sourced by
# deploy/quickstart, tests/run and deploy/try-in-chroot, so that the package lists stand once.
# The sourcing script sets `top` (the repository) and bash's strict mode.
: "${top:?deploy/setup.sh is sourced with top set}"

# Debian's and Ubuntu's names. libc6-dev is named since nothing that gcc depends on brings it.
packages_build=(gcc libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev
    libutf8proc-dev libxxhash-dev libssl-dev libopenmpi-dev openmpi-bin libgrpc-dev libprotobuf-c-dev
    protobuf-c-compiler libevent-dev libcyaml-dev libyaml-dev curl)
packages_test=(g++ libcmocka-dev libsimde-dev xz-utils python3 python3-venv curl iproute2 git git-lfs
    openssl groff-base)
packages_browser=(chromium-headless-shell) # 100 MB, 300 MB on the disk; Ubuntu has none
packages_deploy=(dpkg-dev debhelper systemd procps) # of tests of deploy/: packages, units
packages_long=(lintian) # with --long: 130 packages of Perl
# Unpacked and not installed: on a machine with systemd that would start Slurm's daemons. The last three are
# libraries that nothing else here brings for sure.
packages_slurm=(munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins liblua5.1-0 libjson-c5 libmunge2)
packages_fuzz=(clang) # and clang's run-time library, see fuzz_runtime_package
packages_oracle=(python3 python3-venv)
packages_lint=(clang-format clang-tidy cppcheck shellcheck git)

say() {
    printf '==> %s\n' "$*"
}

# die MESSAGE [WHAT_TO_DO]...: each on a line of its own.
die() {
    printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
    shift
    if (($# > 0)); then
        printf '    %s\n' "$@" >&2
    fi
    exit 1
}

# The free space where `path` lies, in MiB.
free_mib() {
    df -Pm "$1" | awk 'NR == 2 { print $4 }'
}

need_space_mib() {
    local path=$1 wanted=$2 found
    found=$(free_mib "$path")
    if ((found < wanted)); then
        die "$path has $found MiB free and this step needs about $wanted MiB." \
            "Free some space and run the same command again."
    fi
}

packages_missing() {
    local name status
    for name in "$@"; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) || status=absent
        if [[ $status != installed ]]; then
            printf '%s\n' "$name"
        fi
    done
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# Runs apt-get quietly; its output is shown only when it fails, with what to look at.
run_apt() {
    local log
    log=$(mktemp)
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" \
        >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt-get $1 failed; its last lines stand above." \
        "No network or an unreachable mirror: check /etc/apt and the proxy, then run again." \
        "A full disk: / has $(free_mib /) MiB free." \
        "A package that cannot be found: this needs Debian 12, Ubuntu 22.04 or later."
}

# A machine that is not Debian's: name what is needed, and go on if the first tools are there;
# CMake then says by name which library it misses.
check_foreign_system() {
    local tool
    say "This is neither Debian nor Ubuntu. What these Debian packages hold must be installed:"
    printf '    %s\n' "$*"
    for tool in cc cmake pkg-config; do
        if ! command -v "$tool" >/dev/null; then
            die "$tool is missing." "Install the equivalents of the packages above and run again."
        fi
    done
}

# install_packages NAME...: installs those that are missing; when none is, does nothing at all.
install_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        check_foreign_system "$@"
        return
    fi
    mapfile -t missing < <(packages_missing "$@")
    if ((${#missing[@]} == 0)); then
        return
    fi
    say "Installing ${#missing[@]} missing packages: ${missing[*]}"
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        die "installing packages needs root, and sudo is not here. As root, run:" \
            "apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    fi
    need_space_mib / 1800
    # Once a run of the script is enough, however many lists are installed.
    if [[ -z ${apt_is_fresh:-} ]]; then
        run_apt update
        apt_is_fresh=yes
    fi
    run_apt install --yes --no-install-recommends "${missing[@]}"
}

# install_if_offered NAME...: what a distribution may lack. The tests that need it then say that they are
# skipped.
install_if_offered() {
    local name
    if ! command -v apt-cache >/dev/null || ((EUID != 0)) && ! command -v sudo >/dev/null; then
        return
    fi
    for name in $(packages_missing "$@"); do
        if ! apt-cache show bash >/dev/null 2>&1 && [[ -z ${apt_is_fresh:-} ]]; then
            run_apt update
            apt_is_fresh=yes
        fi
        if apt-cache show "$name" >/dev/null 2>&1; then
            install_packages "$name"
        else
            say "This distribution has no $name."
        fi
    done
}

# unpack_if_offered FOLDER NAME...: Debian packages as files, once, for tests alone. Nothing is installed or
# started; what is not offered is left out, and the test that needs it then says that it is skipped.
unpack_if_offered() {
    local folder=$1 name fetched
    shift
    if [[ -d $folder ]] || ! command -v apt-get >/dev/null; then
        return 0
    fi
    fetched=$(mktemp -d)
    for name in "$@"; do
        if ! (cd "$fetched" && apt-get -q download "$name") >/dev/null 2>&1 </dev/null; then
            say "This distribution has no $name, or cannot be reached."
        fi
    done
    mkdir -p "$folder.part"
    for name in "$fetched"/*.deb; do
        if [[ -f $name ]]; then dpkg-deb --extract "$name" "$folder.part"; fi
    done
    rm -rf "$fetched"
    if [[ -d $folder.part/usr ]]; then mv "$folder.part" "$folder"; else rm -rf "$folder.part"; fi
}

# The sanitizers' and libFuzzer's library is packaged by clang's version.
install_fuzz_packages() {
    install_packages "${packages_fuzz[@]}"
    install_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# configure DIR OPTION...: makes or refreshes a build folder; nothing to do is quick.
configure() {
    local dir=$1 cache=$1/CMakeCache.txt log generator=()
    shift
    # A tree that was copied or moved with its build folder would make CMake refuse.
    if [[ -f $cache ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$top" "$cache"; then
        rm -rf "$cache" "$dir/CMakeFiles"
    fi
    if [[ ! -f $cache ]] && command -v ninja >/dev/null; then
        generator=(-G Ninja)
    fi
    mkdir -p "$dir"
    log=$dir/configure.log
    if ! cmake -S "$top" -B "$dir" "${generator[@]}" "$@" >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        die "CMake could not configure $dir; its last lines stand above, all of them in $log." \
            "A library not found: install it. An old cache: remove $dir and run again."
    fi
}

# build DIR [TARGET]...: on all cores. Shows the compiler's words only when it fails. build_seconds:
# for all of it, where it is set.
build() {
    local dir=$1 log=$1/build.log status=0
    shift
    ${build_seconds:+timeout -k 5 "$build_seconds"} cmake --build "$dir" --target "${@:-all}" \
        --parallel "$(nproc)" >"$log" 2>&1 || status=$?
    if ((status == 124)); then
        die "the build ran out of time after $build_seconds s." "What is built is kept: run the same command again."
    elif ((status != 0)); then
        # From the first command that failed on; not the commands that went well.
        sed -n '/^FAILED\|rror:\|\*\*\*/,$p' "$log" | grep -vE '^\[[0-9]+/' | head -n 40 >&2 || true
        die "the build failed; all of its output is in $log." \
            "Killed or out of memory: try again with fewer jobs, cmake --build $dir -j1." \
            "A full disk: $dir has $(free_mib "$dir") MiB free."
    fi
}
