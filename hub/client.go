package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client asks one hub. Its methods are safe for concurrent use.
type Client struct {
	s        Settings
	endpoint *url.URL
	http     *http.Client
}

const (
	idleLimit      = 60 * time.Second
	answerLimit    = 64 << 20 // bytes of an answer that is no file
	mostRedirects  = 10
	mostAttempts   = 7 // at a file, without a byte in between
	callAttempts   = 5 // at a question
	askAttempts    = 2 // at a question whose answer the cache may replace
	longestWait    = 30 * time.Second
	longestRetryAt = 10 * time.Minute // that a server may ask for
)

// New returns a client. It fails on an endpoint that is no URL and on a token that cannot be sent.
func New(s Settings) (*Client, error) {
	if s.Endpoint == "" {
		s.Endpoint = DefaultEndpoint
	}
	u, err := url.Parse(strings.TrimSuffix(s.Endpoint, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, &Error{Msg: fmt.Sprintf("the endpoint %q is no address", plain(s.Endpoint)), Hint: "set HF_ENDPOINT to something like https://hub.example.org"}
	}
	if strings.ContainsFunc(s.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &Error{Msg: "the token has characters that no token has", Hint: "check HF_TOKEN"}
	}
	if s.Connections <= 0 {
		s.Connections = DefaultConnections
	}
	if s.wait == nil {
		s.wait = backoff
	}
	if s.idle <= 0 {
		s.idle = idleLimit
	}
	if s.Agent == "" {
		s.Agent = "mergekit"
	}
	c := &Client{s: s, endpoint: u}
	transport := s.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: s.idle,
			MaxIdleConnsPerHost:   s.Connections,
			IdleConnTimeout:       90 * time.Second,
			DisableCompression:    true, // a length and a range are of what the hub keeps
			// One connection for each request: HTTP/2 would put all segments on a single one, whose window bounds them.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		}
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: c.redirected}
	return c, nil
}

// Endpoint returns the hub's address.
func (c *Client) Endpoint() string { return c.endpoint.String() }

// warn passes a warning on.
func (c *Client) warn(format string, args ...any) {
	if c.s.Warn != nil {
		c.s.Warn(fmt.Sprintf(format, args...))
	}
}

// redirected follows redirects, but takes the token along to the endpoint alone. (net/http would also tell it to subdomains and
// to other ports.)
func (c *Client) redirected(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= mostRedirects:
		return &redirectError{fmt.Sprintf("more than %d redirects", mostRedirects)}
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return &redirectError{fmt.Sprintf("a redirect from https to %s is not followed", plain(req.URL.Scheme))}
	case req.Method != via[0].Method: // the page that is there would pass for the answer to an upload
		return &redirectError{fmt.Sprintf("a redirect of a %s to %s is not followed", via[0].Method, plain(req.URL.Host))}
	}
	req.Header.Del("Referer") // the address before may be a signed one, which opens what it names
	if !c.own(req.URL) {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	} else if t := via[0].Header.Get("Authorization"); t != "" && c.own(via[0].URL) {
		req.Header.Set("Authorization", t)
	}
	return nil
}

// redirectError says why a redirect is not followed.
type redirectError struct{ msg string }

func (e *redirectError) Error() string { return e.msg }

// own reports whether an address is the endpoint's.
func (c *Client) own(u *url.URL) bool {
	return u.Scheme == c.endpoint.Scheme && strings.EqualFold(u.Hostname(), c.endpoint.Hostname()) && portOf(u) == portOf(c.endpoint)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// address is the endpoint with path elements after it; slashes in an element are escaped.
func (c *Client) address(elements ...string) string {
	var b strings.Builder
	b.WriteString(c.endpoint.String())
	for _, e := range elements {
		b.WriteString("/")
		b.WriteString(url.PathEscape(e))
	}
	return b.String()
}

// fileAddress is where a file of a commit is.
func (c *Client) fileAddress(repo, commit, file string) string {
	elements := append(strings.Split(repo, "/"), "resolve", commit)
	return c.address(append(elements, strings.Split(file, "/")...)...)
}

// request makes a request with the token, if the address is the endpoint's.
func (c *Client) request(ctx context.Context, method, address string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.s.Agent)
	req.Header.Set("Accept-Encoding", "identity")
	if c.s.Token != "" && c.own(req.URL) {
		req.Header.Set("Authorization", "Bearer "+c.s.Token)
	}
	return req, nil
}

// do sends a request once. Errors of the network are transient.
func (c *Client) do(req *http.Request, repo, file string) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err == nil {
		return resp, nil
	}
	if req.Context().Err() != nil {
		return nil, context.Cause(req.Context())
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address, which may be signed
	}
	e := &TransferError{Repo: repo, File: file, Msg: fmt.Sprintf("%s cannot be reached: %s", req.URL.Host, plain(err.Error())), Hint: "check the network; --offline uses what is in the cache", Err: err}
	if bad := (*redirectError)(nil); errors.As(err, &bad) {
		e.Msg, e.Hint = bad.msg, "the server is set up wrongly, or a proxy or a login page answers instead; check HF_ENDPOINT"
		return nil, e
	}
	var cert *tls.CertificateVerificationError
	var name *net.DNSError
	if errors.As(err, &cert) || errors.As(err, &name) && name.IsNotFound {
		return nil, e
	}
	return nil, &transient{err: e}
}

// question is a request for something that is no file.
type question struct {
	method, address string
	body            []byte
	header          http.Header
	repo            string // as the user wrote it
	attempts        int    // 0: callAttempts
}

// call asks and decodes the answer into v (nil: it is not looked at).
func (c *Client) call(ctx context.Context, q question, v any) (http.Header, error) {
	var answered http.Header
	if q.attempts == 0 {
		q.attempts = callAttempts
	}
	repo := q.repo
	err := c.retry(ctx, q.attempts, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, 2*c.s.idle, silent(repo))
		defer cancel()
		req, err := c.request(ctx, q.method, q.address, bytes.NewReader(q.body))
		if err != nil {
			return err
		}
		for k := range q.header {
			req.Header.Set(k, q.header.Get(k))
		}
		resp, err := c.do(req, repo, "")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answered = resp.Header
		if resp.StatusCode < 200 || resp.StatusCode > 299 {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
			if resp.Header.Get("X-Error-Message") == "" {
				resp.Header.Set("X-Error-Message", saidIn(said))
			}
			return refusal(resp, repo, "", resp.Request.Header.Get("Authorization") != "")
		}
		if v == nil {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
		if err != nil {
			return &transient{err: &TransferError{Repo: repo, Msg: "the answer breaks off: " + plain(err.Error()), Hint: "try again"}}
		}
		if len(data) > answerLimit {
			return &TransferError{Repo: repo, Msg: fmt.Sprintf("the answer has more than %d bytes", answerLimit), Hint: "check HF_ENDPOINT"}
		}
		if err := json.Unmarshal(data, v); err != nil {
			kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
			return &TransferError{Repo: repo, Msg: fmt.Sprintf("the answer of %s is not what a hub says (%s)", req.URL.Host, plain(kind)), Hint: "check HF_ENDPOINT, and whether a proxy or a login page answers instead"}
		}
		return nil
	})
	return answered, err
}

// saidIn finds the message in the JSON of a refusal.
func saidIn(data []byte) string {
	var m struct {
		Error, Message string
	}
	if json.Unmarshal(data, &m) != nil {
		return ""
	}
	if m.Error == "" {
		return m.Message
	}
	return m.Error
}

// silent is the cause of giving up a request without an answer.
func silent(repo string) error {
	return &transient{err: &TransferError{Repo: repo, Msg: "the server is silent", Hint: "check the network"}}
}

// retry repeats do while it fails transiently.
func (c *Client) retry(ctx context.Context, attempts int, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil {
			return nil
		}
		if err := c.pause(ctx, attempt, attempts, err); err != nil {
			return err
		}
	}
}

// pause waits before another attempt, the given one of so many having failed with err. It returns what there is to report when there
// will be none.
func (c *Client) pause(ctx context.Context, attempt, attempts int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t, ok := again(err)
	if !ok {
		return err
	}
	if attempt >= attempts {
		return t.err
	}
	wait := c.s.wait(attempt)
	if t.after.given {
		if t.after.wait > longestRetryAt {
			return t.err
		}
		wait = t.after.wait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// backoff doubles from half a second.
func backoff(attempt int) time.Duration {
	return min(time.Second/2<<min(attempt-1, 10), longestWait)
}

// retryAfter is what a server says about when to ask again.
type retryAfter struct {
	wait  time.Duration
	given bool
}

// parseRetryAfter reads the header Retry-After: seconds or a date (RFC 9110, 10.2.3).
func parseRetryAfter(h http.Header) retryAfter {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return retryAfter{}
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return retryAfter{time.Duration(min(n, 1<<20)) * time.Second, true}
	}
	if at, err := http.ParseTime(text); err == nil {
		return retryAfter{max(0, time.Until(at)), true}
	}
	return retryAfter{}
}
