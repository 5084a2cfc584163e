# cmake -D FOLDER=... -D OUT=... -P embed.cmake
# The web page's files as one C file: the table page_files of coordinator/page.h. No tool but CMake.
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")
file(GLOB paths ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
list(SORT paths)
set(arrays "")
set(table "")
set(count 0)
foreach(path ${paths})
    get_filename_component(name ${path} NAME)
    string(REGEX REPLACE ".*\\." "" extension ${name})
    file(SHA256 ${path} sum)
    string(SUBSTRING ${sum} 0 16 sum)
    file(READ ${path} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(REGEX REPLACE "(................................................................................)"
        "\\1\n" bytes "${bytes}")
    string(APPEND arrays "static const unsigned char file_${count}[] = {\n${bytes}\n};\n")
    string(APPEND table "    {\"${name}\", \"${type_${extension}}\", \"\\\"${sum}\\\"\", file_${count}, "
        "sizeof file_${count}},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUT}.new "/* Made by coordinator/page/embed.cmake. */\n#include \"coordinator/page.h\"\n\n"
    "${arrays}\nconst struct page_file page_files[] = {\n${table}};\n"
    "const size_t page_file_count = ${count};\n")
file(RENAME ${OUT}.new ${OUT})
