/*
 * What the program's own file tells: names of kernels, lines of code, and where the __shared__
 * variables are. Those are the static variables of functions: code that runs on a device has no
 * others (constants lie in a segment that cannot be written). See runtime.h.
 */
#include "runtime.h"

#include <algorithm>
#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct symbol {
    uintptr_t base, end;
    const char *name; /* mangled, in the mapped file */
};
struct range {
    uintptr_t base, end;
};
static std::vector<symbol> functions, guards;
static std::vector<shared_variable> shared;
static std::vector<range> constants;
static uintptr_t bias; /* added to the program's addresses when it was loaded */
static bool loaded;

static std::string demangled(const char *name)
{
    int status;
    char *text = abi::__cxa_demangle(name, NULL, NULL, &status);
    std::string s = text ? text : name;
    free(text);
    return s;
}

/* "tile" of "kernel(float*)::tile". */
static std::string last_part(const std::string &name)
{
    size_t at = name.rfind("::");
    return at == std::string::npos ? name : name.substr(at + 2);
}

static int on_module(struct dl_phdr_info *info, size_t size, void *first)
{
    (void)size;
    bool *is_first = (bool *)first;
    if (*is_first)
        bias = info->dlpi_addr;
    *is_first = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        if ((p.p_type == PT_LOAD && !(p.p_flags & PF_W)) || p.p_type == PT_GNU_RELRO)
            constants.push_back(
                {info->dlpi_addr + p.p_vaddr, info->dlpi_addr + p.p_vaddr + p.p_memsz});
    }
    return 0;
}

static void add_symbol(const ElfW(Sym) & s, const char *name)
{
    uintptr_t base = bias + s.st_value;
    int type = ELF64_ST_TYPE(s.st_info);
    if (s.st_shndx == SHN_UNDEF || s.st_size == 0)
        return;
    if (type == STT_FUNC)
        functions.push_back({base, base + s.st_size, name});
    else if (type == STT_OBJECT && strncmp(name, "_ZGV", 4) == 0)
        guards.push_back({base, base + s.st_size, name});
    else if (type == STT_OBJECT && strncmp(name, "_ZZ", 3) == 0 && !symbols_constant(base))
        shared.push_back({base, base + s.st_size, last_part(demangled(name))});
}

static void read_symbols(const char *file)
{
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)(const void *)file;
    const ElfW(Shdr) *sections = (const ElfW(Shdr) *)(const void *)(file + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        const ElfW(Shdr) &s = sections[i];
        if (s.sh_type != SHT_SYMTAB)
            continue;
        const ElfW(Sym) *all = (const ElfW(Sym) *)(const void *)(file + s.sh_offset);
        const char *names = file + sections[s.sh_link].sh_offset;
        for (size_t j = 0; j < s.sh_size / sizeof *all; j++)
            add_symbol(all[j], names + all[j].st_name);
    }
}

static void load()
{
    if (loaded)
        return;
    loaded = true;
    bool first = true;
    dl_iterate_phdr(on_module, &first);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st = {};
    void *file = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0)
        file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file != MAP_FAILED)
        read_symbols((const char *)file);
    if (fd >= 0)
        close(fd);
    if (functions.empty()) {
        fprintf(stderr, "simt: this program has no symbols: expected one that is not stripped\n");
        abort();
    }
    std::sort(shared.begin(), shared.end(),
              [](const shared_variable &a, const shared_variable &b) { return a.base < b.base; });
}

const std::vector<shared_variable> &symbols_shared()
{
    load();
    return shared;
}

bool symbols_constant(uintptr_t a)
{
    for (const range &r : constants)
        if (a >= r.base && a < r.end)
            return true;
    return false;
}

bool symbols_guard(uintptr_t a)
{
    for (const symbol &s : guards)
        if (a >= s.base && a < s.end)
            return true;
    return false;
}

std::string symbols_function(const void *function)
{
    uintptr_t a = (uintptr_t)function;
    load();
    for (const symbol &s : functions)
        if (a >= s.base && a < s.end)
            return demangled(s.name);
    return "a kernel";
}

/* From the repository's top, as people name files. */
static std::string shortened(const std::string &path)
{
    for (const char *top : {"/tests/", "/worker/"}) {
        size_t at = path.rfind(top);
        if (at != std::string::npos)
            return path.substr(at + 1);
    }
    return path;
}

static bool of_the_emulator(const std::string &line)
{
    return line.find("/simt/simt.h") != std::string::npos ||
           line.find("/cuda/device.cuh") != std::string::npos;
}

/* The line of an address by binutils' addr2line, which prints inlined calls from the inside. */
static std::string line_of(const void *pc)
{
    char command[128], line[1024];
    snprintf(command, sizeof command, "addr2line -i -e /proc/%d/exe 0x%llx 2>/dev/null", getpid(),
             (unsigned long long)((uintptr_t)pc - 1 - bias));
    FILE *pipe = popen(command, "r");
    std::string found;
    while (pipe && fgets(line, sizeof line, pipe)) {
        line[strcspn(line, " \n")] = '\0';
        if (line[0] == '?' || of_the_emulator(line) || !found.empty())
            continue;
        found = shortened(line);
    }
    if (pipe)
        pclose(pipe);
    if (found.empty())
        found = "address " + std::to_string((uintptr_t)pc - bias) + " (no debug information)";
    return found;
}

std::string symbols_place(struct place place)
{
    if (place.file)
        return shortened(place.file) + ":" + std::to_string(place.line);
    return place.pc ? line_of(place.pc) : "";
}
