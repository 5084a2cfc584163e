# device_objects(NAME FILE...): the same files by nvcc, where there is one: they must compile for every
# architecture that Witan knows (-DWITAN_NVCC=OFF: not at all). The objects are then in NAME_objects.
find_program(WITAN_NVCC nvcc HINTS /usr/local/cuda/bin /opt/cuda/bin)
set(WITAN_CUDA_ARCHITECTURES 80 90a 100 CACHE STRING "GPU architectures, as nvcc's sm_ names them")
function(device_objects name)
    foreach(arch ${WITAN_CUDA_ARCHITECTURES})
        list(APPEND code -gencode arch=compute_${arch},code=sm_${arch})
    endforeach()
    foreach(file ${ARGN})
        get_filename_component(source ${file} ABSOLUTE)
        get_filename_component(base ${file} NAME)
        set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}/${base}.o)
        file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${name})
        add_custom_command(OUTPUT ${object} DEPFILE ${object}.d
            COMMAND ${WITAN_NVCC} -x cu -std=c++17 -O3 -fmad=false -lineinfo -Werror all-warnings
                ${code} -Xcompiler -fPIC -I${CMAKE_SOURCE_DIR} -D_GNU_SOURCE -DWITAN_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                -MD -MF ${object}.d -c ${source} -o ${object}
            DEPENDS ${source} VERBATIM COMMENT "nvcc ${base}")
        list(APPEND objects ${object})
    endforeach()
    add_custom_target(${name} ALL DEPENDS ${objects})
    set(${name}_objects ${objects} PARENT_SCOPE)
endfunction()

# Kernels of instructions that the emulator (tests/simt) does not have: nvcc alone compiles them, and their
# tests, tests/cuda/*_test.cu, want a GPU.
set(WITAN_CUDA_DEVICE_ONLY ${CMAKE_SOURCE_DIR}/worker/cuda/hopper.cu CACHE INTERNAL "")
