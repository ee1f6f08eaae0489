package merge

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Files are told apart by name, size, time of change and samples of their content. Size and time alone are not enough: fine-tunes of one model
// have files of one size, and archives, container images and version control give all files one time. A whole hash costs as much as a merge;
// numbers of devices and inodes are others on every mount of a network's file system, whose nodes must agree on what they merge.
const (
	sampled    = 16
	sampleSize = 4 << 10
)

// identifyFiles hashes what tells files from others. What cannot be read is told apart as far as it goes: whoever merges it will say so.
func identifyFiles(h io.Writer, files []string) {
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			fmt.Fprintf(h, "%s %d %d|", filepath.Base(f), st.Size(), st.ModTime().UnixNano())
			if st.Mode().IsRegular() {
				sampleFile(h, f, st.Size())
			}
		}
	}
}

// sampleFile hashes a small file as a whole, and of a large one pieces at equal distances, the first and the last among them. Of one that
// stands for a remote file it sees zeros; its time follows from the content's hash.
func sampleFile(h io.Writer, file string, size int64) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	if size <= sampled*sampleSize {
		_, _ = io.Copy(h, io.LimitReader(f, sampled*sampleSize))
		return
	}
	b := make([]byte, sampleSize)
	for i := range int64(sampled) {
		n, _ := f.ReadAt(b, (size-sampleSize)*i/(sampled-1))
		_, _ = h.Write(b[:n])
	}
}
