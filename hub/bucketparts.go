package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

// partBytes is how long the parts of a large object are.
func (s *Settings) partBytes() int64 {
	if s.segment > 0 {
		return s.segment
	}
	return 64 << 20
}

// storeParts sends the parts of a file to an object store; see eachPart.
func (u *upload) storeParts(ctx context.Context, file *os.File, send func(ctx context.Context, i int, data *io.SectionReader) error) (int, error) {
	const most = 10_000 // parts that stores take
	return u.eachPart(ctx, file, max(u.c.s.partBytes(), (u.file.Size+most-1)/most), send)
}

// s3Parts sends a large object to a store that speaks S3. An upload that fails is given up, so that its parts cost nothing.
func (u *upload) s3Parts(ctx context.Context, b *bucket, key string, file *os.File, header map[string]string) error {
	var begun struct {
		ID string `xml:"UploadId"`
	}
	if err := u.c.ask(ctx, b, http.MethodPost, key, url.Values{"uploads": {""}}, nil, callAttempts, &begun); err != nil {
		return err
	}
	tags := sync.Map{}
	count, err := u.storeParts(ctx, file, func(ctx context.Context, i int, data *io.SectionReader) error {
		query := url.Values{"partNumber": {strconv.Itoa(i + 1)}, "uploadId": {begun.ID}}
		var tag string
		err := u.putSigned(ctx, func() string { return b.sign.address(http.MethodPut, key, query, time.Now()) }, header, data, &tag)
		if err == nil && tag == "" {
			err = u.failure("the store does not confirm part %d", i+1)
		}
		tags.Store(i, tag)
		return err
	})
	if err == nil {
		type part struct {
			PartNumber int
			ETag       string
		}
		done := struct {
			XMLName xml.Name `xml:"CompleteMultipartUpload"`
			Part    []part
		}{}
		for i := range count {
			tag, _ := tags.Load(i)
			text, _ := tag.(string)
			done.Part = append(done.Part, part{i + 1, text})
		}
		var body []byte
		if body, err = xml.Marshal(done); err == nil {
			// A store answers 200 before it knows whether it can, so what counts is in the body.
			var said struct {
				XMLName xml.Name
				Message string
			}
			err = u.c.ask(ctx, b, http.MethodPost, key, url.Values{"uploadId": {begun.ID}}, body, callAttempts, &said)
			if err == nil && said.XMLName.Local == "Error" {
				err = u.failure("the store cannot put its parts together: %s", plain(said.Message))
			}
		}
	}
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = u.c.ask(clean, b, http.MethodDelete, key, url.Values{"uploadId": {begun.ID}}, nil, 1, nil)
	}
	return err
}

// azureBlocks sends a large object to Azure: blocks, and then the list of them.
func (u *upload) azureBlocks(ctx context.Context, b *bucket, key string, file *os.File, header map[string]string) error {
	id := func(i int) string { return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%06d", i)) }
	plainHeader := map[string]string{}
	for k, v := range header {
		if k != "X-Ms-Blob-Type" {
			plainHeader[k] = v
		}
	}
	count, err := u.storeParts(ctx, file, func(ctx context.Context, i int, data *io.SectionReader) error {
		query := url.Values{"comp": {"block"}, "blockid": {id(i)}}
		return u.putSigned(ctx, func() string { return b.sign.address(http.MethodPut, key, query, time.Now()) }, plainHeader, data, nil)
	})
	if err != nil {
		return err
	}
	var body bytes.Buffer
	body.WriteString(`<?xml version="1.0" encoding="utf-8"?><BlockList>`)
	for i := range count {
		fmt.Fprintf(&body, "<Latest>%s</Latest>", id(i))
	}
	body.WriteString("</BlockList>")
	return u.c.ask(ctx, b, http.MethodPut, key, url.Values{"comp": {"blocklist"}}, body.Bytes(), callAttempts, nil)
}
