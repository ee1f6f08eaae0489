package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error says that what the user asked of a hub cannot be had as asked: a name that is none, a repository that does not exist
// or is closed to this token, a file that is not there, a cache that lacks it while there is no network. Programs map it to
// the exit status for bad input. Any field may be empty.
type Error struct {
	Repo   string // as the user wrote it
	File   string // in the repository
	Msg    string // what is wrong
	Hint   string // what to do
	Status int    // of the hub's answer; 0: it was not asked
	Err    error  // cause, for errors.Is; Msg already tells it
}

// Error renders "repo: file: message; hint".
func (e *Error) Error() string { return sentence(e.Repo, e.File, e.Msg, e.Hint) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// TransferError says that a transfer failed after it had begun or could not begin: no connection, a server that goes on
// failing, content that is not what the listing promises. The same command may go on later.
type TransferError struct {
	Repo, File string
	Msg, Hint  string
	Err        error
}

// Error renders "repo: file: message; hint".
func (e *TransferError) Error() string { return sentence(e.Repo, e.File, e.Msg, e.Hint) }

// Unwrap returns the cause.
func (e *TransferError) Unwrap() error { return e.Err }

func sentence(repo, file, msg, hint string) string {
	var b strings.Builder
	for _, part := range []string{repo, file} {
		if part != "" {
			b.WriteString(plain(part))
			b.WriteString(": ")
		}
	}
	b.WriteString(msg)
	if hint != "" {
		b.WriteString("; ")
		b.WriteString(hint)
	}
	return b.String()
}

// plain cuts a text that came from elsewhere and takes out what would write to a terminal.
func plain(s string) string {
	const longest = 300
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '�' {
			return ' '
		}
		return r
	}, s)
	if r := []rune(clean); len(r) > longest {
		return string(r[:longest]) + "..."
	}
	return clean
}

// transient marks an error after which the same request may succeed, and how long the server asks to wait.
type transient struct {
	err   error
	after retryAfter
}

func (e *transient) Error() string { return e.err.Error() }
func (e *transient) Unwrap() error { return e.err }

// again reports whether an error is transient.
func again(err error) (*transient, bool) {
	var t *transient
	ok := errors.As(err, &t)
	return t, ok
}

// refusal explains an answer that is no success. repo is as the user wrote it; asked says whether a token was sent.
func refusal(resp *http.Response, repo, file string, asked bool) error {
	code := resp.Header.Get("X-Error-Code")
	said := plain(strings.TrimSpace(resp.Header.Get("X-Error-Message")))
	e := &Error{Repo: repo, File: file, Status: resp.StatusCode}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		msg := fmt.Sprintf("the server answers %s", statusText(status))
		if said != "" {
			msg += ": " + said
		}
		return &transient{err: &TransferError{Repo: repo, File: file, Msg: msg, Hint: "try again later; what has been received is kept"}, after: parseRetryAfter(resp.Header)}
	case code == "GatedRepo":
		e.Msg = "is gated: its owners let in who has asked them"
		e.Hint = "accept the conditions on the repository's page, with the account that the token in HF_TOKEN belongs to"
		if !asked {
			e.Hint = "accept the conditions on the repository's page and set HF_TOKEN to a token of that account"
		}
	case code == "RevisionNotFound":
		e.Msg, e.Hint = "has no such revision", "check the branch, tag or commit after the \"@\""
	case code == "EntryNotFound":
		e.Msg, e.Hint = "has no such file", "check its name"
	case code == "DisabledRepo":
		e.Msg, e.Hint = "has been disabled by the hub", "ask its owners"
	case status == http.StatusUnauthorized && asked:
		// A hub that knows the token says of a private repository that it does not exist.
		e.Msg, e.Hint = "does not exist, or the hub does not accept the token", "check the name, and HF_TOKEN"
		if code == "" || strings.Contains(strings.ToLower(said), "credential") || strings.Contains(strings.ToLower(said), "token") {
			e.Msg, e.Hint = "the hub does not accept the token", "check HF_TOKEN; a token may have expired"
		}
	case status == http.StatusUnauthorized:
		e.Msg, e.Hint = "does not exist, or is private or gated", "check the name, or set HF_TOKEN to a token that may read it"
	case status == http.StatusForbidden:
		e.Msg, e.Hint = "access is refused", "ask its owners for access, and check what the token in HF_TOKEN may do"
		if !asked {
			e.Hint = "set HF_TOKEN to a token of an account that has access"
		}
	case status == http.StatusNotFound && file != "" && code == "":
		e.Msg, e.Hint = "has no such file", "check its name"
	case status == http.StatusNotFound || status == http.StatusGone:
		e.Msg, e.Hint = "does not exist on this hub", "check the name"
	default:
		e.Msg = "the server answers " + statusText(status)
	}
	if said != "" && code == "" { // what a code says is said already
		e.Msg += " (the hub says: " + said + ")"
	}
	return e
}

func statusText(status int) string {
	if t := http.StatusText(status); t != "" {
		return fmt.Sprintf("%d %s", status, t)
	}
	return fmt.Sprint(status)
}
