package backend

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// entryPoint is what every PJRT plugin exports.
const entryPoint = "GetPjrtApi"

// searchEnv is go-xla's variable: if set, only its directories are searched.
const searchEnv = "PJRT_PLUGIN_LIBRARY_PATH"

// xlaStatus finds the plugin of a kind and says whether it can be loaded.
func xlaStatus(kind Kind) Status {
	s := Status{Kind: kind}
	name := strings.TrimPrefix(string(kind), "xla:")
	if noXLA != "" {
		s.Detail = noXLA
		return s
	}
	path, err := findPlugin(kind, searchDirs())
	switch {
	case err != nil:
		s.Detail = fmt.Sprintf("%v; run 'mergekit backends install %s'", err, name)
	case path == "":
		s.Detail = fmt.Sprintf("no plugin is installed; run 'mergekit backends install %s'", name)
	case kind == XLACUDA && !hasGPU():
		s.Path = path
		s.Detail = "the plugin is installed, but there is no NVIDIA GPU here (no /dev/nvidia*); check the driver"
	default:
		s.Path, s.Available = path, true
		s.Detail = "XLA plugin " + path
	}
	return s
}

// hasGPU looks for the device files of NVIDIA's driver.
func hasGPU() bool {
	m, err := filepath.Glob("/dev/nvidia[0-9]*")
	if err == nil && len(m) > 0 {
		return true
	}
	_, err = os.Stat("/dev/nvidiactl")
	return err == nil
}

// searchDirs returns where plugins are looked for: the directories of go-xla, except those of the system's linker.
func searchDirs() []string {
	if v, ok := os.LookupEnv(searchEnv); ok {
		return absolute(filepath.SplitList(v))
	}
	var dirs []string
	if home, err := os.UserHomeDir(); err == nil {
		lib := filepath.Join(home, ".local", "lib")
		dirs = append(dirs, filepath.Join(lib, "go-xla"), filepath.Join(lib, "go-xla", "nvidia"), filepath.Join(lib, "gomlx", "pjrt"))
	}
	dirs = append(dirs, "/usr/local/lib/go-xla", "/usr/local/lib/go-xla/nvidia", "/usr/local/lib/gomlx/pjrt")
	for _, d := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		if filepath.IsAbs(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

func absolute(dirs []string) []string {
	var out []string
	for _, d := range dirs {
		if abs, err := filepath.Abs(d); d != "" && err == nil {
			out = append(out, abs)
		}
	}
	return out
}

// findPlugin returns the first usable plugin of a kind, "" if there is none, or an error if there are only unusable ones.
func findPlugin(kind Kind, dirs []string) (string, error) {
	name := strings.TrimPrefix(string(kind), "xla:")
	var bad error
	for _, dir := range dirs {
		for _, path := range candidates(dir, name) {
			if k, err := kindOfPath(path); err != nil || k != kind {
				bad = cmp.Or(bad, err)
				continue
			}
			if err := checkPlugin(path); err != nil {
				bad = cmp.Or(bad, err)
				continue
			}
			return path, nil
		}
	}
	return "", bad
}

var pluginName = regexp.MustCompile(`^(?:pjrt_c_api_([a-z]+)(.*)_plugin|pjrt[-_]plugin[-_]([a-z]+)(.*))\.so$`)

// candidates returns the plugins called name in dir: the one without a version first, then the newest.
func candidates(dir, name string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // most of the directories do not exist
	}
	type candidate struct {
		file    string
		version []int
	}
	var found []candidate
	for _, e := range entries {
		m := pluginName.FindStringSubmatch(e.Name())
		if m == nil || m[1]+m[3] != name {
			continue
		}
		found = append(found, candidate{filepath.Join(dir, e.Name()), numbers(m[2] + m[4])})
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		if c := cmp.Compare(min(len(a.version), 1), min(len(b.version), 1)); c != 0 {
			return c
		}
		return slices.Compare(b.version, a.version)
	})
	var out []string
	for _, c := range found {
		out = append(out, c.file)
	}
	return out
}

var digits = regexp.MustCompile(`\d+`)

// numbers returns the numbers in a version, so that v0.114 sorts above v0.83.
func numbers(version string) []int {
	var out []int
	for _, d := range digits.FindAllString(version, -1) {
		n, err := strconv.Atoi(d)
		if err != nil {
			n = 0 // too long to be a version
		}
		out = append(out, n)
	}
	return out
}

// kindOfPath guesses what a plugin runs on as go-xla does, from its path, and refuses paths where go-xla would guess wrong.
func kindOfPath(path string) (Kind, error) {
	// go-xla reads its options after the first comma.
	if strings.Contains(path, ",") {
		return "", fmt.Errorf("plugin %s: its path contains a comma, which XLA's options do not allow; move it or make a link", path)
	}
	isCUDA := func(s string) bool { return strings.Contains(s, "cuda") || strings.Contains(s, "nvidia") }
	lower := strings.ToLower(path)
	base := filepath.Base(lower)
	switch {
	case isCUDA(base):
		return XLACUDA, nil
	case strings.Contains(base, "cpu") && isCUDA(lower):
		return "", fmt.Errorf("plugin %s: a folder called cuda or nvidia makes XLA take it for a GPU plugin; move it or make a link", path)
	case strings.Contains(base, "cpu"):
		return XLACPU, nil
	case isCUDA(lower):
		return XLACUDA, nil
	case strings.Contains(lower, "cpu"):
		return XLACPU, nil
	}
	return "", fmt.Errorf("plugin %s: its path does not say what it runs on; name it, or a link to it, pjrt_c_api_cpu_plugin.so or pjrt_c_api_cuda_plugin.so", path)
}

// machines are the ELF machines of the architectures that plugins exist for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkPlugin reads the file as ELF before it is loaded: loading a wrong one can end the process.
func checkPlugin(path string) error {
	f, err := elf.Open(path)
	var format *elf.FormatError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("plugin %s does not exist; give the path of a PJRT plugin, or 'mergekit backends' to see what is installed", path)
	case errors.As(err, &format), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("plugin %s is not a shared library (ELF): %w; install it again", path, err)
	case err != nil:
		return fmt.Errorf("plugin %s cannot be read: %w; check the file", path, err)
	}
	defer f.Close()
	if want, ok := machines[runtime.GOARCH]; ok && f.Machine != want {
		return fmt.Errorf("plugin %s is for %v, and this machine is %s; install the one for %s", path, f.Machine, runtime.GOARCH, runtime.GOARCH)
	}
	if f.Type != elf.ET_DYN {
		return fmt.Errorf("plugin %s is not a shared library but %v; give the path of a PJRT plugin", path, f.Type)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return fmt.Errorf("plugin %s: its symbols cannot be read: %w; install it again", path, err)
	}
	for _, s := range symbols {
		if s.Name == entryPoint && s.Section != elf.SHN_UNDEF {
			return nil
		}
	}
	return fmt.Errorf("plugin %s does not export %s, so it is not a PJRT plugin; give the path of one", path, entryPoint)
}
