package backend

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// library returns a minimal shared library for a machine with one dynamic symbol in a section.
func library(machine elf.Machine, symbol string, section elf.SectionIndex) []byte {
	const header, entry, sym = 64, 64, 24
	names := "\x00.dynsym\x00.dynstr\x00.shstrtab\x00"
	text := "\x00" + symbol + "\x00"
	symAt := uint64(header)
	textAt := symAt + 2*sym
	namesAt := textAt + uint64(len(text))
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put(elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_DYN),
		Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Shoff: namesAt + uint64(len(names)), Ehsize: header, Shentsize: entry, Shnum: 4, Shstrndx: 3,
	})
	put(elf.Sym64{})
	put(elf.Sym64{Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: uint16(section)})
	b.WriteString(text + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_DYNSYM), Off: symAt, Size: 2 * sym, Link: 2, Entsize: sym})
	put(elf.Section64{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: textAt, Size: uint64(len(text))})
	put(elf.Section64{Name: 17, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))})
	return b.Bytes()
}

// goodLibrary is one that checkPlugin accepts here.
func goodLibrary() []byte { return library(machines[runtime.GOARCH], entryPoint, 1) }

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckPlugin(t *testing.T) {
	native := machines[runtime.GOARCH]
	if native == 0 {
		t.Skip("there are no plugins for this architecture")
	}
	good := goodLibrary()
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"good", good, ""},
		{"empty", nil, "not a shared library"},
		{"text", []byte("this is a text, long enough for the header of an ELF file, but not one"), "not a shared library"},
		{"cut", good[:len(good)-100], "plugin"},
		{"other machine", library(elf.EM_PPC64, entryPoint, 1), "is for EM_PPC64"},
		{"other symbol", library(native, "GetOtherApi", 1), "does not export GetPjrtApi"},
		{"undefined symbol", library(native, entryPoint, elf.SHN_UNDEF), "does not export GetPjrtApi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkPlugin(write(t, filepath.Join(t.TempDir(), "p.so"), c.data))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if err := checkPlugin(t.TempDir()); err == nil {
		t.Error("a directory was accepted")
	}
}

func TestKindOfPath(t *testing.T) {
	for _, c := range []struct {
		path, want string // a kind, or a part of the error
	}{
		{"/lib/pjrt_c_api_cpu_plugin.so", "xla:cpu"},
		{"/lib/nvidia/pjrt_c_api_cuda_plugin.so", "xla:cuda"},
		{"/lib/cpu/plugin.so", "xla:cpu"},
		{"/lib/jax_cuda13/plugin.so", "xla:cuda"},
		{"/lib/cpu/CUDA.so", "xla:cuda"},
		{"/nvidia/pjrt_c_api_cpu_plugin.so", "makes XLA take it for a GPU plugin"},
		{"/lib/plugin.so", "does not say what it runs on"},
		{"/a,b/pjrt_c_api_cpu_plugin.so", "comma"},
	} {
		kind, err := kindOfPath(c.path)
		if err == nil && string(kind) != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %q", c.path, kind, err, c.want)
		}
	}
}

func TestCandidatesPreferPlainThenNewest(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"pjrt_c_api_cpu_v0.83.1_plugin.so", "pjrt_c_api_cpu_v0.114.0_plugin.so", "pjrt_c_api_cpu_plugin.so",
		"pjrt-plugin-cpu.so", "pjrt_c_api_cuda13_plugin.so", "pjrt_c_api_cpu_plugin.so.old", "readme"} {
		write(t, filepath.Join(dir, name), nil)
	}
	var got []string
	for _, p := range candidates(dir, "cpu") {
		got = append(got, filepath.Base(p))
	}
	want := []string{"pjrt-plugin-cpu.so", "pjrt_c_api_cpu_plugin.so", "pjrt_c_api_cpu_v0.114.0_plugin.so", "pjrt_c_api_cpu_v0.83.1_plugin.so"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := candidates(dir, "cuda"); len(got) != 1 {
		t.Errorf("cuda: %v", got)
	}
	if got := candidates(filepath.Join(dir, "none"), "cpu"); got != nil {
		t.Errorf("no directory: %v", got)
	}
}

func TestFindPluginSkipsUnusableFiles(t *testing.T) {
	if machines[runtime.GOARCH] == 0 {
		t.Skip("there are no plugins for this architecture")
	}
	first, second := t.TempDir(), t.TempDir()
	if p, err := findPlugin(XLACPU, []string{first, second}); p != "" || err != nil {
		t.Errorf("empty directories: %q, %v", p, err)
	}
	write(t, filepath.Join(first, "pjrt_c_api_cpu_plugin.so"), []byte("broken"))
	if p, err := findPlugin(XLACPU, []string{first, second}); p != "" || err == nil {
		t.Errorf("broken plugin: %q, %v", p, err)
	}
	good := write(t, filepath.Join(second, "pjrt_c_api_cpu_plugin.so"), goodLibrary())
	if p, err := findPlugin(XLACPU, []string{first, second}); p != good || err != nil {
		t.Errorf("good plugin: %q, %v", p, err)
	}
	t.Setenv(searchEnv, first+":"+second)
	if s := xlaStatus(XLACPU); noXLA == "" && (!s.Available || s.Path != good) {
		t.Errorf("status %+v", s)
	}
}

func TestSearchDirs(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	t.Setenv("LD_LIBRARY_PATH", "/opt/lib::relative")
	t.Setenv(searchEnv, "/one:/two:")
	if got := searchDirs(); !slices.Equal(got, []string{"/one", "/two"}) {
		t.Errorf("with %s: %v", searchEnv, got)
	}
	os.Unsetenv(searchEnv)
	got := searchDirs()
	for _, want := range []string{"/home/someone/.local/lib/go-xla", "/usr/local/lib/go-xla", "/opt/lib"} {
		if !slices.Contains(got, want) {
			t.Errorf("%v lacks %s", got, want)
		}
	}
	if slices.Contains(got, "relative") {
		t.Errorf("%v has a relative directory", got)
	}
}
