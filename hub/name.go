package hub

import (
	"fmt"
	"path"
	"regexp"
	"runtime"
	"strings"
)

// scheme begins a name that is certainly a hub's.
const scheme = "hf://"

// Name says which files of which hub repository at which revision.
type Name struct {
	Repo     string // org/name, or name alone for the oldest repositories
	Revision string // branch, tag or commit; "" means main
	Sub      string // directory or file in the repository, "" for its root
	Written  string // as the user wrote it, for messages
}

// Looks says whether a path has the form of a name that is elsewhere: hf://..., org/name, or a place in an object store.
func Looks(p string) bool {
	if strings.HasPrefix(p, scheme) || IsBucket(p) {
		return true
	}
	org, name, two := strings.Cut(p, "/")
	return two && part.MatchString(org) && part.MatchString(name)
}

// part is what the hub allows between slashes.
var part = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$`)

// ParseName reads [hf://]org/name[@revision], or hf://org/name/directory[@revision] for a part of a repository. A revision
// given apart (as recipes hold it) counts when the text names none.
func ParseName(s, revision string) (Name, error) {
	n := Name{Written: s, Revision: revision}
	if revision != "" {
		n.Written += "@" + revision
	}
	rest, marked := strings.CutPrefix(s, scheme)
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		if revision != "" {
			return n, &Error{Repo: n.Written, Msg: "names two revisions", Hint: "leave one out"}
		}
		rest, n.Revision = rest[:at], rest[at+1:]
		if n.Revision == "" {
			return n, &Error{Repo: n.Written, Msg: `names no revision after "@"`, Hint: `add it or remove the "@"`}
		}
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	if !marked && len(parts) != 2 {
		return n, &Error{Repo: n.Written, Msg: "is no name on a hub", Hint: "write org/name, org/name@revision or hf://org/name"}
	}
	for i, p := range parts {
		if i < 2 && !part.MatchString(p) {
			return n, &Error{Repo: n.Written, Msg: fmt.Sprintf("is no name on a hub: %q may not be a part of one", plain(p)), Hint: "write org/name, org/name@revision or hf://org/name"}
		}
	}
	n.Repo = strings.Join(parts[:min(2, len(parts))], "/")
	if len(parts) > 2 {
		n.Sub = strings.Join(parts[2:], "/")
		if !plainPath(n.Sub) {
			return n, &Error{Repo: n.Written, Msg: "names a path that leaves the repository", Hint: "write hf://org/name/directory"}
		}
	}
	if n.Revision != "" && !plainPath(n.Revision) {
		return n, &Error{Repo: n.Written, Msg: "names a revision that cannot be one", Hint: "give a branch, a tag or a commit"}
	}
	return n, nil
}

// String is the name as a user would write it.
func (n Name) String() string {
	s := n.Repo
	if n.Sub != "" {
		s = scheme + s + "/" + n.Sub
	}
	if n.Revision != "" {
		s += "@" + n.Revision
	}
	return s
}

// Path is the name without its revision.
func (n Name) Path() string {
	n.Revision = ""
	if n.Sub == "" && !strings.Contains(n.Repo, "/") {
		return scheme + n.Repo
	}
	return n.String()
}

// revision is the revision to ask for.
func (n Name) revision() string {
	if n.Revision == "" {
		return "main"
	}
	return n.Revision
}

// plainPath reports whether p is a relative path of plain names that stays where it begins, on any system.
func plainPath(p string) bool { return inside(p) && !strings.ContainsAny(p, reserved) }

// reserved are characters that Windows gives a meaning in paths.
const reserved = ":*?\"<>|"

// filePath is plainPath for files that a repository has already, under names that this system takes.
func filePath(p string) bool { return inside(p) && (runtime.GOOS != "windows" || plainPath(p)) }

func inside(p string) bool {
	if p == "" || len(p) > 1024 || path.IsAbs(p) || path.Clean(p) != p || strings.Contains(p, "\\") {
		return false
	}
	for _, r := range p {
		if r < ' ' || r == 0x7f || r == '�' {
			return false
		}
	}
	for _, name := range strings.Split(p, "/") {
		if name == ".." || name == "." || strings.HasSuffix(name, " ") {
			return false
		}
	}
	return true
}

var (
	md5Form    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	commitForm = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagForm   = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`) // a git blob's SHA-1, or a SHA-256
)
