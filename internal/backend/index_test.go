package backend

import (
	"os"
	"path/filepath"
	"testing"
)

func TestConfiguredIndex(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("VIRTUAL_ENV", "")
	t.Setenv("PIP_INDEX_URL", "")
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	expect := func(want string) {
		t.Helper()
		if got, _ := configuredIndex(); got != want {
			t.Errorf("index %q, want %q", got, want)
		}
	}
	expect(publicIndex)
	t.Setenv("PIP_CONFIG_FILE", "")
	write(t, filepath.Join(home, ".pip", "pip.conf"), []byte("[global]\nindex_url: no\nindex-url=http://old/simple\n"))
	expect("http://old/simple")
	write(t, filepath.Join(home, ".config", "pip", "pip.conf"), []byte("[install]\nindex-url = http://no\n[global]\n# index-url = http://no\n index-url = http://u:p%40=@user/simple \ncert = x\n"))
	expect("http://u:p%40=@user/simple")
	t.Setenv("PIP_CONFIG_FILE", write(t, filepath.Join(home, "my.conf"), []byte("[global]\nindex-url = http://mine/simple\n")))
	expect("http://mine/simple")
	t.Setenv("PIP_INDEX_URL", "http://env/simple")
	expect("http://env/simple")
}
